//! Merging a stand-alone queue into another.

use std::{mem, sync::Arc};

use super::{Phase, Queue, State};
use crate::{
    observe::metrics::MetricName,
    util::sync::{MutexGuard, lock},
};

impl Queue {
    /// Appends the tasks of `from` to this queue. Tasks added to `from` later come here too.
    ///
    /// This does nothing if `from` is this queue, belongs to a runner, is held, or is already
    /// merged or discarded.
    pub(crate) fn merge(self: &Arc<Self>, from: &Arc<Self>) {
        let from = from.root();
        if !from.is_held {
            self.take_from(&from);
        }
    }

    /// Like [`merge`](Self::merge), but `from` may be a held queue that is being released.
    pub(super) fn take_from(self: &Arc<Self>, from: &Arc<Self>) {
        let into = self.root();
        if Arc::ptr_eq(&into, from) || from.owner.is_some() {
            return;
        }
        let (mut state, mut from_state) = lock_both(&into, from);
        if matches!(from_state.phase, Phase::Merged(_) | Phase::Discarded) {
            return;
        }
        match state.phase {
            // `into` was merged before this thread held both locks. Start again from its new root.
            Phase::Merged(_) => {
                drop((state, from_state));
                return into.take_from(from);
            }
            Phase::Discarded => {
                drop((state, from_state));
                return from.discard();
            }
            Phase::Recording => {
                from_state.phase = Phase::Merged(Arc::clone(&into));
                let moving = mem::take(&mut from_state.tasks);
                drop((state, from_state));
                return into.record_all(moving);
            }
            Phase::Open | Phase::Running | Phase::Idle => {}
        }
        from_state.phase = Phase::Merged(Arc::clone(&into));
        let mut moving = mem::take(&mut from_state.tasks);
        drop(from_state);
        let (mut names, mut refused) = (Vec::new(), Vec::new());
        while let Some(mut task) = moving.pop() {
            match into.count_in(&mut state) {
                Ok(id) => {
                    task.set_id(id);
                    names.push(MetricName::of_task(&task));
                    state.tasks.push(task);
                }
                Err(_) => refused.push(task),
            }
        }
        let ready = into.start_if_idle_with_tasks(&mut state);
        drop(state);
        names.into_iter().for_each(|name| into.tell_added(name));
        into.watch_responses();
        if let Some(ready) = ready {
            into.schedule(ready, true);
        }
        for task in refused {
            into.reject(task);
        }
    }
}

/// Locks both queues at once, so that no task added to `from` meanwhile overtakes the tasks that
/// move. The serials order the two locks, so two merges of the same pair cannot deadlock. Only a
/// stand-alone or held queue is ever `from`, and both have serials.
pub(super) fn lock_both<'a>(
    into: &'a Queue,
    from: &'a Queue,
) -> (MutexGuard<'a, State>, MutexGuard<'a, State>) {
    if into.serial < from.serial {
        let into = lock(&into.state);
        return (into, lock(&from.state));
    }
    let from = lock(&from.state);
    (lock(&into.state), from)
}
