//! [`Ready`]: a batch's right to dequeue tasks.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Ended, Entry, Phase, Queue, State, dequeued::Dequeued, entries::Settled};
#[cfg(all(tokio_unstable, feature = "tracing"))]
use crate::task::label::Label;
use crate::{
    observe::metrics::MetricName,
    task::{Task, id::TaskId, kind::TaskKind, node::Needs},
    util::sync::{MutexGuard, lock},
};

/// Counts as a batch. If it is dropped before the queue is idle, the remaining tasks are aborted.
pub(crate) struct Ready {
    queue: Arc<Queue>,
    /// The task dequeued last, if this batch runs it.
    current: Option<TaskId>,
    /// What the next task needs, if known.
    needs: Option<Needs>,
    /// True if this batch runs one task of a concurrent queue. It then dequeues no other.
    is_for_one: bool,
    /// True if each async task begins as it is dequeued: it needs no permit, and no other task
    /// runs beside it.
    begins_async: bool,
    /// True if the batch goes to the back of the worker's queue before its next task.
    pub(crate) yields: bool,
    has_ended: bool,
}

/// What a batch does next.
pub(crate) enum Next {
    /// The task has begun.
    Begun(Task),
    /// The task begins once it has its permit and its thread.
    Waiting(Dequeued),
    /// No task waits, so the batch has ended.
    End,
}

impl Queue {
    /// Sets the phase to `Running` and makes the batch. The caller schedules the batch after it
    /// releases the lock.
    pub(super) fn make_ready(self: &Arc<Self>, state: &mut State) -> Ready {
        state.phase = Phase::Running;
        let mut ready = Ready::new(Arc::clone(self));
        ready.needs = state.tasks.first_needs();
        ready.begins_async = self.begins_async();
        ready
    }

    /// Counts a batch. A caller that changes the phase holds the lock. So a thread that sees the
    /// new phase finds the batch counted.
    pub(super) fn count_batch(&self) {
        if let Some(owner) = &self.owner {
            owner.shared.count_batch();
        }
    }
}

impl Ready {
    fn new(queue: Arc<Queue>) -> Self {
        queue.count_batch();
        Self {
            queue,
            current: None,
            needs: None,
            is_for_one: false,
            begins_async: false,
            yields: true,
            has_ended: false,
        }
    }

    /// Schedules a dequeued task as a batch of its own, beside the others of its queue.
    pub(crate) fn run_beside(&mut self, dequeued: &Dequeued) {
        let mut one = Self::new(Arc::clone(&self.queue));
        one.is_for_one = true;
        one.current = self.current.take();
        one.needs = Some(dequeued.needs);
        self.queue.schedule(one, false);
    }

    /// Returns the task that was dequeued before this batch began.
    pub(crate) fn dequeued(&self) -> Option<Dequeued> {
        let (id, needs) = (self.current?, self.needs?);
        Some(Dequeued { id, needs })
    }

    pub(super) fn yielding(mut self, yields: bool) -> Self {
        self.yields = yields;
        self
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// True if the runner's limits apply to the batch.
    pub(crate) fn is_limited(&self) -> bool {
        self.queue.is_limited()
    }

    /// True if each dequeued task runs beside the others.
    #[inline]
    pub(crate) fn is_concurrent(&self) -> bool {
        !self.is_for_one && self.queue.is_concurrent()
    }

    /// Returns what the next task needs, before it is dequeued.
    pub(crate) fn first_needs(&self) -> Option<Needs> {
        self.needs
            .or_else(|| lock(&self.queue.state).tasks.first_needs())
    }

    /// Returns the label of the next task.
    #[cfg(all(tokio_unstable, feature = "tracing"))]
    pub(crate) fn first_label(&self) -> Option<Label> {
        match self.current {
            Some(id) => self.queue.label_of(id),
            None => lock(&self.queue.state).tasks.first_labels(1).pop(),
        }
    }

    /// Counts an ended task and dequeues the next, in one critical section. On a worker, an async
    /// task that needs no permit also begins there.
    #[inline]
    pub(crate) fn next(&mut self, ended: Option<&Ended>, on_worker: bool) -> Next {
        let queue = &self.queue;
        let mut state = lock(&queue.state);
        let settled =
            ended.map(|Ended { id, end, told }| queue.settle_in(&mut state, *id, end, *told));
        let task = if self.is_for_one {
            None
        } else {
            state.tasks.pop()
        };
        let Some(task) = task else {
            self.has_ended = true;
            queue.end_batch(state, settled, self.is_for_one);
            return Next::End;
        };
        let name = MetricName::of_task(&task);
        (self.current, self.needs) = (Some(task.id()), None);
        let begins = on_worker && self.begins_async && task.kind() == TaskKind::Async;
        let next = if begins {
            state.begin_at_once(&task);
            queue.count_begun();
            Next::Begun(task)
        } else {
            Next::Waiting(state.wait(task))
        };
        drop(state);
        // Dropping the waker and the span may run user code, so the lock is released first.
        drop(settled);
        if begins {
            queue.tell_begun(name);
        }
        // No waiter needs a wake-up: the dequeued task has not ended.
        next
    }
}

impl State {
    #[inline]
    fn begin_at_once(&mut self, task: &Task) {
        let entry = Entry::running(task.label(), Instant::now());
        self.entries.insert(entry);
    }

    /// Moves a dequeued task to the entries, where it waits for its permit and its thread.
    pub(super) fn wait(&mut self, task: Task) -> Dequeued {
        let dequeued = Dequeued::of(&task);
        self.entries.insert(Entry::waiting(task));
        dequeued
    }
}

impl Queue {
    /// Starts an idle queue if it holds tasks. They may have been moved there.
    pub(super) fn start_if_idle_with_tasks(self: &Arc<Self>, state: &mut State) -> Option<Ready> {
        let has_tasks = !state.tasks.is_empty();
        has_tasks.then(|| self.start_if_idle(state)).flatten()
    }

    fn begins_async(&self) -> bool {
        !self.is_limited() && !self.is_concurrent()
    }

    /// Ends a batch that found no task. The caller's lock is still held, so no task can be added
    /// before the queue is idle.
    fn end_batch(
        &self,
        mut state: MutexGuard<'_, State>,
        settled: Option<Settled>,
        is_for_one: bool,
    ) {
        // A batch for one task does not own the phase.
        if !is_for_one {
            state.phase = Phase::Idle;
        }
        let handle = self.leave_if_empty(&mut state);
        drop(state);
        drop((settled, handle));
        self.batch_ended();
    }

    pub(super) fn batch_ended(&self) {
        if let Some(owner) = &self.owner {
            owner.shared.batch_ended();
        }
    }

    #[inline]
    pub(super) fn notify(&self) {
        if let Some(owner) = &self.owner {
            owner.shared.notify();
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        if let Some(id) = self.current {
            self.queue.abort_dequeued(id);
        }
        if !self.is_for_one {
            self.queue.abort_waiting();
        }
        self.queue.batch_ended();
    }
}
