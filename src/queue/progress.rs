//! A task whose turn has come, on its way to its end.

use std::{mem, task::Waker, time::Duration};

use tokio::time::Instant;

use super::{Ended, Entry, EntryState, Phase, Queue, State, dequeued::Dequeued, entries::Settled};
use crate::{
    observe::{
        metrics::{self, MetricName},
        report::Report,
        span::TaskSpan,
    },
    task::{Task, end::TaskEnd, id::TaskId, label::Label, node::Needs},
    util::{contain::contain_drop, sync::lock},
};

impl Queue {
    /// The task's own timeout, or the runner's.
    pub(crate) fn timeout_of(&self, needs: Needs) -> Option<Duration> {
        needs.timeout.or_else(|| self.settings()?.task_timeout)
    }

    /// The task begins, and the caller has it; `None` where somebody has ended it.
    pub(crate) fn begin(&self, id: TaskId) -> Option<Task> {
        self.begin_in(id, false)
    }

    /// The same, on a blocking thread that somebody waits for.
    pub(crate) fn begin_on_thread(&self, id: TaskId) -> Option<Task> {
        self.begin_in(id, true)
    }

    fn begin_in(&self, id: TaskId, on_thread: bool) -> Option<Task> {
        let mut state = lock(&self.state);
        let entry = state.entries.get_mut(id)?;
        let task = match mem::replace(&mut entry.state, EntryState::Running) {
            EntryState::Waiting(task) => task,
            other => {
                entry.state = other;
                return None;
            }
        };
        entry.begun = Some(Instant::now());
        entry.on_thread = on_thread;
        self.count_begun(); // under the lock: whoever ends the task finds it counted
        drop(state);
        if self.owner.is_some() {
            metrics::begun(MetricName::of_task(&task));
        }
        Some(task)
    }

    #[inline]
    pub(super) fn count_begun(&self) {
        if let Some(owner) = &self.owner {
            owner.shared.count_begun();
        }
    }

    /// The thread of a supervised task has returned: if it was overdue, it is forgotten.
    pub(crate) fn returned(&self, id: TaskId) {
        let mut state = lock(&self.state);
        let Some(entry) = state.entries.get_mut(id) else {
            return;
        };
        entry.on_thread = false;
        let overdue = matches!(entry.state, EntryState::Overdue);
        let entry = overdue.then(|| state.entries.remove(id));
        let handle = self.leave_if_empty(&mut state);
        drop(state);
        drop((entry, handle));
    }

    /// The task is pending, and `waker` wakes who polls it; false where somebody has ended it.
    pub(crate) fn park(&self, id: TaskId, waker: &Waker) -> bool {
        match Self::current(&mut lock(&self.state), id) {
            None => return false,
            Some(Entry {
                waker: Some(old), ..
            }) if old.will_wake(waker) => return true,
            Some(_) => {}
        }
        // A waker's clone and drop may be anybody's code: not under the lock.
        let mut waker = Some(waker.clone());
        let mut state = lock(&self.state);
        let entry = Self::current(&mut state, id);
        let is_current = entry
            .map(|entry| mem::swap(&mut entry.waker, &mut waker))
            .is_some();
        drop(state);
        let _ = contain_drop(waker);
        is_current
    }

    /// Keeps the span of a task that begins, for whoever ends it.
    #[inline]
    pub(crate) fn keep_span(&self, id: TaskId, span: &TaskSpan) {
        if span.is_none() {
            return;
        }
        let mut span = span.clone();
        if let Some(entry) = Self::current(&mut lock(&self.state), id) {
            mem::swap(&mut entry.span, &mut span);
        }
    }

    /// Drops a task that has ended before it began: its thread never came, or came too late.
    pub(crate) fn finish_waiting(&self, id: TaskId, end: TaskEnd) -> TaskEnd {
        let mut state = lock(&self.state);
        let entry = state.entries.get_mut(id);
        let waiting = entry.filter(|entry| matches!(entry.state, EntryState::Waiting(_)));
        let task = waiting.map(|entry| mem::replace(&mut entry.state, EntryState::Running));
        drop(state);
        match contain_drop(task) {
            Ok(()) => end,
            Err(panic) => TaskEnd::Panicked(panic),
        }
    }

    /// Claims a task that has ended and tells its end, if anybody is to be told; false where nobody is, or somebody else has
    /// claimed it. The caller drops its own handle of the task's span afterwards, and settles.
    #[inline]
    pub(crate) fn tell(&self, id: TaskId, end: &TaskEnd, has_span: bool) -> bool {
        let Some(owner) = &self.owner else {
            return false;
        };
        if !has_span && !owner.shared.is_seen(end) {
            return false;
        }
        let mut state = lock(&self.state);
        let Some(entry) = Self::current(&mut state, id) else {
            return false;
        };
        entry.state = EntryState::Ended;
        let (label, begun) = (entry.label.clone(), entry.begun);
        let span = mem::take(&mut entry.span);
        drop(state);
        self.report(&label, begun, end, &span);
        true
    }

    /// Tells the end of a task, in its span. The caller has claimed it, or it never was in the queue.
    pub(super) fn report(
        &self,
        label: &Label,
        begun: Option<Instant>,
        end: &TaskEnd,
        span: &TaskSpan,
    ) {
        let owner = self.owner.as_ref();
        let Some(owner) = owner.filter(|owner| owner.shared.is_seen(end)) else {
            return;
        };
        let report = Report {
            label,
            end,
            begun,
            ended: Instant::now(),
            response: self.outcome.get(),
            request: self.request.as_ref(),
        };
        span.in_scope(|| owner.shared.tell(&report));
    }

    /// Counts a task that was claimed, and whose end has been told.
    pub(super) fn settle_claimed(&self, id: TaskId, end: &TaskEnd) {
        self.settle_with(id, end, true);
    }

    /// Counts a task that has ended, unless somebody else has claimed it.
    pub(crate) fn settle(&self, ended: &Ended) {
        self.settle_with(ended.id, &ended.end, ended.told);
    }

    fn settle_with(&self, id: TaskId, end: &TaskEnd, told: bool) {
        let mut state = lock(&self.state);
        let settled = self.settle_in(&mut state, id, end, told);
        let handle = self.leave_if_empty(&mut state);
        drop(state);
        drop((settled, handle));
        self.notify();
    }

    #[inline]
    pub(super) fn settle_in(
        &self,
        state: &mut State,
        id: TaskId,
        end: &TaskEnd,
        told: bool,
    ) -> Settled {
        let is_ours = |entry: &&mut Entry| match entry.state {
            EntryState::Ended => told,
            EntryState::Overdue => false,
            EntryState::Waiting(_) | EntryState::Running => !told,
        };
        let Some(entry) = state.entries.get_mut(id).filter(is_ours) else {
            return Settled::default();
        };
        let (settled, has_begun) = (entry.settle(), entry.begun.is_some());
        if entry.on_thread && matches!(end, TaskEnd::TimedOut) {
            entry.state = EntryState::Overdue;
        } else {
            state.entries.forget(id);
        }
        state.stopped |= end.is_failure() && self.stops_on_failure();
        if let Some(owner) = &self.owner {
            owner.shared.count_ended(end, has_begun);
        }
        settled
    }

    /// The turn of the next task of a queue whose response has not ended, for whoever runs it by hand. Afterwards only a batch
    /// may take tasks out.
    pub(crate) fn take_by_hand(&self) -> Option<Dequeued> {
        let state = &mut *lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return None;
        }
        let mut task = state.tasks.pop()?;
        if self.owner.is_none() {
            // All have the number 0. With one of its own, the entry of a task that was aborted is never that of the next.
            state.taken += 1;
            task.set_id(TaskId::new(state.taken));
        }
        Some(state.wait(task))
    }
}
