//! The progress of a dequeued task, from its beginning to its end.

use std::{mem, task::Waker, time::Duration};

use tokio::time::Instant;

use super::{Ended, Entry, EntryState, Phase, Queue, State, dequeued::Dequeued, entries::Settled};
use crate::{
    observe::{metrics::MetricName, report::Report, span::TaskSpan},
    shared::{Shared, settings::Settings},
    task::{Task, end::TaskEnd, id::TaskId, label::Label, node::Needs},
    util::{contain::contain_drop, sync::lock},
};

impl Queue {
    /// Returns the task's own timeout, or else the runner's.
    pub(crate) fn timeout_of(&self, needs: Needs) -> Option<Duration> {
        let of_the_runner = || self.settings()?.task_timeout.filter(|_| !self.is_shielded);
        needs.timeout.or_else(of_the_runner)
    }

    /// Begins the task and returns it. Returns `None` if its end is claimed.
    pub(crate) fn begin(&self, id: TaskId) -> Option<Task> {
        self.begin_in(id, false)
    }

    /// Like [`begin`](Self::begin), on a blocking thread that a supervisor awaits.
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
        // Counted under the lock, so that a thread that ends the task finds its beginning counted.
        self.count_begun();
        drop(state);
        self.tell_begun(MetricName::of_task(&task));
        Some(task)
    }

    /// Counts the beginning in the metrics. The caller has released the lock.
    #[inline]
    pub(super) fn tell_begun(&self, name: MetricName) {
        if let Some(owner) = &self.owner {
            owner.shared.metrics.begun(name, self.request.as_ref());
        }
    }

    #[inline]
    pub(super) fn count_begun(&self) {
        if let Some(owner) = &self.owner {
            owner.shared.count_begun();
            self.give_back_place(false);
        }
    }

    fn count_overdue(&self, count: impl Fn(&Shared)) {
        if let Some(owner) = &self.owner {
            count(&owner.shared);
        }
    }

    /// True if the runner's limits apply to this queue.
    pub(super) fn is_limited(&self) -> bool {
        !self.is_shielded && self.settings().is_some_and(Settings::is_limited)
    }

    /// Records that the thread of a supervised task has returned. An overdue task then leaves the
    /// queue.
    pub(crate) fn returned(&self, id: TaskId) {
        let mut state = lock(&self.state);
        let Some(entry) = state.entries.get_mut(id) else {
            return;
        };
        entry.on_thread = false;
        let overdue = matches!(entry.state, EntryState::Overdue);
        let entry = overdue.then(|| state.entries.remove(id));
        if overdue {
            self.count_overdue(Shared::count_returned);
        }
        let handle = self.leave_if_empty(&mut state);
        drop(state);
        drop((entry, handle));
    }

    /// Stores the waker of a pending task. Returns false if the task's end is claimed.
    pub(crate) fn park(&self, id: TaskId, waker: &Waker) -> bool {
        match Self::unclaimed(&mut lock(&self.state), id) {
            None => return false,
            Some(Entry {
                waker: Some(old), ..
            }) if old.will_wake(waker) => return true,
            Some(_) => {}
        }
        // Cloning or dropping a waker may run user code, so neither happens under the lock.
        let mut waker = Some(waker.clone());
        let mut state = lock(&self.state);
        let entry = Self::unclaimed(&mut state, id);
        let is_unclaimed = entry
            .map(|entry| mem::swap(&mut entry.waker, &mut waker))
            .is_some();
        drop(state);
        let _ = contain_drop(waker);
        is_unclaimed
    }

    /// Stores the span of a task that begins, for the party that reports its end.
    #[inline]
    pub(crate) fn keep_span(&self, id: TaskId, span: &TaskSpan) {
        if span.is_none() {
            return;
        }
        let mut kept = span.clone();
        let mut state = lock(&self.state);
        let entry = Self::unclaimed(&mut state, id);
        let is_claimed = entry
            .map(|entry| mem::swap(&mut entry.span, &mut kept))
            .is_none();
        drop(state);
        if is_claimed {
            // The task was cancelled as it began. Its end was reported before it had a span.
            kept.record_end(&TaskEnd::Aborted);
        }
    }

    /// Drops a task that ends without having begun, for example because it got no thread.
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

    /// Claims an ended task and reports its end. Returns false if nobody observes the end, or if
    /// another party has claimed it. The caller then drops its own handle of the task's span and
    /// settles the end.
    #[inline]
    pub(crate) fn tell(&self, id: TaskId, end: &TaskEnd, has_span: bool) -> bool {
        let Some(owner) = &self.owner else {
            return false;
        };
        if !has_span && !owner.shared.is_seen(end) {
            return false;
        }
        let mut state = lock(&self.state);
        let Some(entry) = Self::unclaimed(&mut state, id) else {
            return false;
        };
        entry.state = EntryState::Ended;
        let (label, begun) = (entry.label.clone(), entry.begun);
        let span = mem::take(&mut entry.span);
        drop(state);
        self.report(&label, begun, end, &span);
        true
    }

    /// Reports a task's end inside its span. Either the caller has claimed the task, or the task
    /// never was in the queue.
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
            extensions: &self.extensions,
            #[cfg(feature = "tracing")]
            has_span: !span.is_none(),
        };
        span.record_end(end);
        span.in_scope(|| owner.shared.tell(&report));
    }

    /// Reports a poll that held its worker for too long.
    pub(crate) fn tell_slow_poll(&self, label: &Label, held: Duration, span: &TaskSpan) {
        if let Some(owner) = &self.owner {
            let request = self.request.as_ref();
            span.in_scope(|| {
                owner
                    .shared
                    .tell_slow_poll(label, held, request, !span.is_none())
            });
        }
    }

    /// Counts a claimed task whose end has been reported.
    pub(super) fn settle_claimed(&self, id: TaskId, end: &TaskEnd) {
        self.settle_with(id, end, true);
    }

    /// Counts an ended task, unless another party has claimed it.
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
        // The party that claimed an end settles it. The batch settles an unclaimed end.
        let is_ours = |entry: &&mut Entry| match entry.state {
            EntryState::Ended => told,
            EntryState::Overdue => false,
            EntryState::Waiting(_) | EntryState::Running => !told,
        };
        let Some(entry) = state.entries.get_mut(id).filter(is_ours) else {
            return Settled::default();
        };
        let (settled, begun) = (entry.settle(), entry.begun);
        if let Some(owner) = &self.owner {
            owner
                .shared
                .tally_end(&entry.label, begun, end, self.request.as_ref());
        }
        if entry.on_thread && matches!(end, TaskEnd::TimedOut) {
            // The entry lists the task as overdue until its thread returns.
            entry.state = EntryState::Overdue;
            self.count_overdue(Shared::count_overdue);
        } else {
            state.entries.forget(id);
        }
        state.stopped |= end.is_failure() && self.stops_on_failure();
        if begun.is_none() {
            // A task that never began is counted as begun, so that no end precedes its beginning.
            self.count_begun();
        }
        if let Some(owner) = &self.owner {
            owner.shared.count_ended(end);
        }
        settled
    }

    /// Dequeues the next task, or the next of this name, for a caller that runs it by hand.
    /// Returns `None` once the response has ended, as then only a batch dequeues tasks.
    pub(crate) fn take_by_hand(&self, name: Option<&str>) -> Option<Dequeued> {
        let state = &mut *lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return None;
        }
        let mut task = match name {
            Some(name) => state.tasks.remove_named(name)?,
            None => state.tasks.pop()?,
        };
        self.no_longer_await(state, 1);
        if self.owner.is_none() {
            // All tasks of this queue have the id 0. A unique id keeps an aborted task's entry
            // apart from the next task's.
            state.taken += 1;
            task.set_id(TaskId::new(state.taken));
        }
        Some(state.wait(task))
    }
}
