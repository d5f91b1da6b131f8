//! Held tasks. They wait for their release in a queue of their own, beside their request's queue.
//!
//! A held queue is open, and no response ends it. It shares the owner of the queue from which it
//! was made, so its tasks are counted, listed and limited at once. Without an owner, they are
//! counted when they reach a queue that has one.

use std::{mem, sync::Arc};

use super::{Phase, Queue, State, claim::Claim, merge::lock_both};
use crate::{
    task::end::{SkipReason, TaskEnd},
    util::{contain::contain_drop, sync::lock},
};

impl Queue {
    /// Appends the tasks of `held` to this queue. Tasks added to `held` later come here too.
    pub(crate) fn release(self: &Arc<Self>, held: &Arc<Self>) {
        if held.owner.is_none() {
            return self.take_from(held);
        }
        let into = self.root();
        let (mut state, mut held_state) = lock_both(&into, held);
        match state.phase {
            Phase::Merged(_) => {
                drop((state, held_state));
                return self.release(held);
            }
            Phase::Discarded => {
                drop((state, held_state));
                return held.discard();
            }
            Phase::Recording => {
                held.no_longer_await(&held_state, held_state.tasks.len());
                held_state.phase = Phase::Merged(Arc::clone(&into));
                drop(state);
                return held.record_waiting(held_state);
            }
            Phase::Open | Phase::Running | Phase::Idle => {}
        }
        if !into.takes_released(&mut state) {
            // The shutdown that closed the registry aborts the held tasks.
            let into_handle = into.leave_if_empty(&mut state);
            drop((state, held_state));
            return drop(into_handle);
        }
        if !matches!(state.phase, Phase::Open) {
            held.no_longer_await(&held_state, held_state.tasks.len());
        }
        held_state.phase = Phase::Merged(Arc::clone(&into));
        let mut moving = mem::take(&mut held_state.tasks);
        let handle = held.leave_if_empty(&mut held_state);
        drop(held_state);
        while let Some(task) = moving.pop() {
            state.tasks.push(task);
        }
        let ready = into.start_if_idle_with_tasks(&mut state);
        // If the release moved no tasks, the queue leaves the registry again.
        let into_handle = into.leave_if_empty(&mut state);
        drop(state);
        drop((handle, into_handle));
        if let Some(ready) = ready {
            into.schedule(ready, true);
        }
    }

    /// Registers the queue. Returns false if the registry is closed. Otherwise a shutdown finds
    /// the tasks that the caller moves here.
    fn takes_released(self: &Arc<Self>, state: &mut State) -> bool {
        let Some(owner) = &self.owner else {
            return true;
        };
        if state.place.is_none() {
            state.place = owner.queues.enter(self).ok();
        }
        state.place.is_some() && !owner.queues.is_closed()
    }

    /// True for a queue that [`held`](Self::held) made, even after its release.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Skips the tasks of a held queue that was not released, and those added to it later.
    pub(crate) fn discard(self: &Arc<Self>) {
        let not_released = TaskEnd::Skipped(SkipReason::NotReleased);
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Merged(_)) {
            return;
        }
        self.no_longer_await(&state, state.tasks.len());
        state.phase = Phase::Discarded;
        loop {
            let Some(task) = state.tasks.pop() else {
                return;
            };
            if self.owner.is_none() {
                drop(state);
                let _ = contain_drop(task); // no runner knows of it
            } else {
                let claim = Claim::of_waiting(self, &mut state, task);
                drop(state);
                claim.tell(&not_released);
            }
            state = lock(&self.state); // a destructor may have added more
        }
    }
}
