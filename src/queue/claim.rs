//! [`Claim`]: the right to report a task's end. A canceller or a shutdown takes it from the batch.

use std::{mem, sync::Arc, task::Waker};

use tokio::time::Instant;

use super::{Entry, EntryState, Phase, Queue, State};
use crate::{
    observe::{info::TaskInfo, span::TaskSpan},
    task::{Task, end::TaskEnd, id::TaskId, label::Label},
    util::{
        contain::{contain, contain_drop},
        sync::lock,
    },
};

/// A claim counts as a batch until the end is reported, so that
/// [`Runner::idle`](crate::Runner::idle) waits for it. Dropping a claim before that aborts its
/// task.
pub(crate) struct Claim {
    queue: Arc<Queue>,
    pub(crate) label: Label,
    pub(crate) begun: Option<Instant>,
    /// `Some` if the task had not begun.
    task: Option<Task>,
    /// Wakes the batch, or the caller of [`BackgroundTasks::run`](crate::BackgroundTasks::run),
    /// that polls the task.
    waker: Option<Waker>,
    span: TaskSpan,
    is_told: bool,
}

impl Claim {
    /// Claims a task that the queue's list no longer holds.
    pub(super) fn of_waiting(queue: &Arc<Queue>, state: &mut State, task: Task) -> Self {
        state.entries.insert(Entry::ended(task.label()));
        Self::new(queue, task.label(), Some(task))
    }

    fn new(queue: &Arc<Queue>, label: Label, task: Option<Task>) -> Self {
        queue.count_batch();
        Self {
            queue: Arc::clone(queue),
            label,
            begun: None,
            task,
            waker: None,
            span: TaskSpan::default(),
            is_told: false,
        }
    }

    pub(super) fn of_entry(queue: &Arc<Queue>, entry: &mut Entry) -> Option<Self> {
        if !entry.is_unclaimed() {
            return None;
        }
        let task = match mem::replace(&mut entry.state, EntryState::Ended) {
            EntryState::Waiting(task) => Some(task),
            _ => None,
        };
        let mut claim = Self::new(queue, entry.label.clone(), task);
        claim.begun = entry.begun;
        claim.waker = entry.waker.take();
        claim.span = mem::take(&mut entry.span);
        Some(claim)
    }

    pub(crate) fn info(&self, now: Instant) -> TaskInfo {
        TaskInfo::new(&self.label, self.begun, self.queue.request.as_ref(), now)
    }

    #[cfg(feature = "jobs")]
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Drops a task that has not begun. If the task runs, this wakes its poller, which then drops
    /// it.
    pub(crate) fn stop(&mut self) {
        let _ = contain_drop(self.task.take());
        if let Some(waker) = self.waker.take() {
            // The waker belongs to the runtime, or to a caller of `BackgroundTasks::run`.
            let _ = contain(|| waker.wake());
        }
    }

    /// Stops the task and reports its end.
    pub(crate) fn tell(mut self, end: &TaskEnd) {
        self.tell_end(end);
    }

    fn tell_end(&mut self, end: &TaskEnd) {
        if mem::replace(&mut self.is_told, true) {
            return;
        }
        self.stop();
        let queue = &self.queue;
        queue.report(&self.label, self.begun, end, &self.span);
        // The span closes before a waiter hears of the end.
        self.span = TaskSpan::default();
        queue.settle_claimed(self.label.id, end);
        queue.batch_ended();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.tell_end(&TaskEnd::Aborted);
    }
}

impl Queue {
    /// Claims every unfinished task.
    pub(super) fn claim_all(self: &Arc<Self>) -> Vec<Claim> {
        let state = &mut *lock(&self.state);
        let entries = state.entries.iter_mut();
        let mut claims: Vec<_> = entries
            .filter_map(|entry| Claim::of_entry(self, entry))
            .collect();
        claims.extend(self.claim_waiting(state));
        claims
    }

    /// Claims every task that has not left the list.
    pub(super) fn claim_waiting(self: &Arc<Self>, state: &mut State) -> Vec<Claim> {
        self.no_longer_await(state, state.tasks.len());
        let mut claims = Vec::with_capacity(state.tasks.len());
        while let Some(task) = state.tasks.pop() {
            claims.push(Claim::of_waiting(self, state, task));
        }
        claims
    }

    /// Aborts a dequeued task, unless its end is claimed.
    pub(super) fn abort_dequeued(self: &Arc<Self>, id: TaskId) {
        let mut state = lock(&self.state);
        let entry = state.entries.get_mut(id);
        let claim = entry.and_then(|entry| Claim::of_entry(self, entry));
        drop(state);
        drop(claim); // tells the end
    }

    /// Aborts each waiting task and makes the queue idle. A destructor may add more tasks, so each
    /// task is taken in its own critical section.
    pub(super) fn abort_waiting(self: &Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            let Some(task) = state.tasks.pop() else {
                state.phase = Phase::Idle;
                let handle = self.leave_if_empty(&mut state);
                drop(state);
                return drop(handle);
            };
            let claim = Claim::of_waiting(self, &mut state, task);
            drop(state);
            drop(claim);
        }
    }
}
