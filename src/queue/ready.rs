//! [`Ready`]: the right to take tasks out of a queue.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Ended, Entry, Phase, Queue, State, turn::Turn};
use crate::{
    observe::metrics::{self, MetricName},
    shared::settings::Settings,
    task::{Task, id::TaskId, kind::TaskKind, node::Needs},
    util::sync::lock,
};

/// Counts as a batch. Dropped before the queue is idle, what is left ends aborted.
pub(crate) struct Ready {
    queue: Arc<Queue>,
    /// It is for one task of a queue whose tasks run side by side, and not for all that come.
    is_for_one: bool,
    /// The task whose turn came last, if it is this batch's to run.
    current: Option<TaskId>,
    /// That task, where its turn had come before.
    turn: Option<Turn>,
    /// The batch is to go to the back of the worker's queue before its first task.
    pub(crate) yields: bool,
    has_ended: bool,
}

/// What a batch has next.
pub(crate) enum Next {
    /// This task, which has begun.
    Begun(Task),
    /// This one, when it has what it needs.
    Waiting(Turn),
    /// Nothing: the batch has ended.
    End,
}

impl Queue {
    /// The queue is running from now on. The caller hands what comes back to whoever runs it, behind the lock.
    pub(super) fn make_ready(self: &Arc<Self>, state: &mut State) -> Ready {
        state.phase = Phase::Running;
        Ready::new(Arc::clone(self), None)
    }

    /// Under the lock: whoever finds the phase changed finds the batch counted.
    pub(super) fn count_batch(&self) {
        if let Some(owner) = &self.owner {
            owner.shared.count_batch();
        }
    }
}

impl Ready {
    fn new(queue: Arc<Queue>, only: Option<Turn>) -> Self {
        queue.count_batch();
        Self {
            queue,
            is_for_one: only.is_some(),
            current: only.as_ref().map(|turn| turn.id),
            turn: only,
            yields: true,
            has_ended: false,
        }
    }

    /// Has a task whose turn has come run beside the others of its queue.
    pub(crate) fn run_beside(&self, turn: Turn) {
        let one = Self::new(Arc::clone(&self.queue), Some(turn));
        self.queue.schedule(one, false);
    }

    /// The turn that has come already.
    pub(crate) fn take_turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }

    pub(super) fn yielding(mut self, yields: bool) -> Self {
        self.yields = yields;
        self
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Each task that it takes out is to be run beside the others.
    pub(crate) fn is_concurrent(&self) -> bool {
        !self.is_for_one && self.queue.is_concurrent()
    }

    /// What the first of the tasks needs, before its turn has come.
    pub(crate) fn first_needs(&self) -> Option<Needs> {
        lock(&self.queue.state).tasks.first_needs()
    }

    /// Counts a task that has ended, and has the next one's turn come, in one critical section. An async task that needs no
    /// permit begins in it, `now`, where the caller is a worker.
    pub(crate) fn next(&mut self, ended: Option<&Ended>, on_worker: bool, now: Instant) -> Next {
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
            if !self.is_for_one {
                state.phase = Phase::Idle;
            }
            let handle = queue.leave_if_empty(&mut state);
            drop(state);
            drop((settled, handle));
            self.end();
            return Next::End;
        };
        let name = MetricName::of_task(&task);
        self.current = (!queue.is_concurrent()).then(|| task.id());
        let next = if on_worker && queue.begins_at_once(&task) {
            state.entries.insert(Entry::running(task.label(), now));
            queue.count_begun();
            Next::Begun(task)
        } else {
            let turn = Turn::of(&task);
            state.entries.insert(Entry::waiting(task));
            Next::Waiting(turn)
        };
        drop(state);
        drop(settled);
        if let Next::Begun(_) = next {
            metrics::begun(name);
        }
        queue.notify();
        next
    }

    /// The batch has ended.
    fn end(&self) {
        if let Some(owner) = &self.queue.owner {
            owner.shared.batch_ended();
        }
    }
}

impl Queue {
    fn begins_at_once(&self, task: &Task) -> bool {
        let is_limited = self.settings().is_some_and(Settings::is_limited);
        task.kind() == TaskKind::Async && !is_limited && !self.is_concurrent()
    }

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
        self.end();
    }
}
