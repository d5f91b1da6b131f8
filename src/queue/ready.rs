//! [`Ready`]: the right to take tasks out of a queue.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Ended, Entry, Phase, Queue, State, dequeued::Dequeued, entries::Settled};
use crate::{
    observe::metrics::{self, MetricName},
    shared::settings::Settings,
    task::{Task, id::TaskId, kind::TaskKind, node::Needs},
    util::sync::{MutexGuard, lock},
};

/// Counts as a batch. Dropped before the queue is idle, what is left ends aborted.
pub(crate) struct Ready {
    queue: Arc<Queue>,
    /// The task whose turn came last, if it is this batch's to run.
    current: Option<TaskId>,
    /// What the next task needs, as far as it is known.
    needs: Option<Needs>,
    /// It is for one task of a queue whose tasks run side by side, and not for all that come.
    is_for_one: bool,
    /// Async tasks need no permit, and run one after another.
    begins_async: bool,
    /// The batch is to go to the back of the worker's queue before its first task.
    pub(crate) yields: bool,
    has_ended: bool,
}

/// What a batch has next.
pub(crate) enum Next {
    /// This task, which has begun.
    Begun(Task),
    /// This one, when it has what it needs.
    Waiting(Dequeued),
    /// Nothing: the batch has ended.
    End,
}

impl Queue {
    /// The queue is running from now on. The caller hands what comes back to whoever runs it, behind the lock.
    pub(super) fn make_ready(self: &Arc<Self>, state: &mut State) -> Ready {
        state.phase = Phase::Running;
        let mut ready = Ready::new(Arc::clone(self));
        ready.needs = state.tasks.first_needs();
        ready.begins_async = self.begins_async();
        ready
    }

    /// Under the lock: whoever finds the phase changed finds the batch counted.
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

    /// Has the task whose turn has come run beside the others of its queue.
    pub(crate) fn run_beside(&mut self, dequeued: &Dequeued) {
        let mut one = Self::new(Arc::clone(&self.queue));
        one.is_for_one = true;
        one.current = self.current.take();
        one.needs = Some(dequeued.needs);
        self.queue.schedule(one, false);
    }

    /// The turn that has come already.
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

    /// Each task that it takes out is to be run beside the others.
    #[inline]
    pub(crate) fn is_concurrent(&self) -> bool {
        !self.is_for_one && self.queue.is_concurrent()
    }

    /// What the first of the tasks needs, before its turn has come.
    pub(crate) fn first_needs(&self) -> Option<Needs> {
        self.needs
            .or_else(|| lock(&self.queue.state).tasks.first_needs())
    }

    /// Counts a task that has ended, and has the next one's turn come, in one critical section. An async task that needs no
    /// permit begins in it, where the caller is a worker.
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
        drop(settled);
        if begins {
            metrics::begun(name);
        }
        queue.notify();
        next
    }
}

impl State {
    #[inline]
    fn begin_at_once(&mut self, task: &Task) {
        let entry = Entry::running(task.label(), Instant::now());
        self.entries.insert(entry);
    }

    /// A task's turn has come, and it waits for what it needs.
    pub(super) fn wait(&mut self, task: Task) -> Dequeued {
        let dequeued = Dequeued::of(&task);
        self.entries.insert(Entry::waiting(task));
        dequeued
    }
}

impl Queue {
    fn begins_async(&self) -> bool {
        let is_limited = self.settings().is_some_and(Settings::is_limited);
        !is_limited && !self.is_concurrent()
    }

    /// No task is left.
    fn end_batch(
        &self,
        mut state: MutexGuard<'_, State>,
        settled: Option<Settled>,
        is_for_one: bool,
    ) {
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
            self.queue.abort_turn(id);
        }
        if !self.is_for_one {
            self.queue.abort_waiting();
        }
        self.queue.batch_ended();
    }
}
