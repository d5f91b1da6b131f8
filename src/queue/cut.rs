//! Tasks that are named, and those that are cut off.

use std::mem;

use tokio::time::Instant;

use super::{Left, Queue};
#[cfg(feature = "jobs")]
use crate::Task;
use crate::{
    TaskEnd, TaskId, TaskInfo,
    observe::span::TaskSpan,
    queue::current::{Current, Currents, info},
    queue::task_list::TaskList,
    util::contain::{contain, contain_drop},
    util::sync::lock,
};

impl Queue {
    /// Takes out everything that has not ended, for the caller to [`abort`](Self::abort).
    pub(crate) fn take_all(&self) -> Left {
        let mut state = lock(&self.state);
        self.count_batch();
        let left = Left {
            currents: state.currents.take_all(),
            tasks: mem::take(&mut state.tasks),
        };
        self.leave_if_empty(state);
        left
    }

    /// Takes the jobs that a store may have out of what was taken out. What one captured that waits is for the caller to drop, when it
    /// holds no lock.
    #[cfg(feature = "jobs")]
    pub(crate) fn jobs_of(&self, left: &mut Left) -> Vec<(Current, Option<Task>)> {
        let is_job = |current: &Current| current.label.kept.is_some();
        let currents = left.currents.take_all().into_iter();
        let (jobs, others): (Vec<_>, Vec<_>) = currents.partition(is_job);
        for current in others {
            left.currents.insert(current);
        }
        let mut jobs: Vec<_> = jobs.into_iter().map(|job| (job, None)).collect();
        for _ in 0..left.tasks.len() {
            let Some(task) = left.tasks.pop() else { break };
            let current = Current::new(task.label(self.arrived));
            if is_job(&current) {
                jobs.push((current, Some(task)));
            } else {
                left.tasks.push(task);
            }
        }
        jobs
    }

    /// Rows for what was taken out.
    pub(crate) fn rows(&self, left: &Left, now: Instant) -> Vec<TaskInfo> {
        self.infos_of(&left.currents, &left.tasks, now)
    }

    /// Ends what was taken out aborted.
    pub(crate) fn abort(&self, mut left: Left) {
        for current in left.currents {
            self.abort_one(current);
        }
        while let Some(task) = left.tasks.pop() {
            let current = Current::new(task.label(self.arrived));
            let _ = contain_drop(task);
            self.abort_one(current);
        }
        self.cut_ends();
    }

    /// Reports a task, which the caller has taken out of the queue, as aborted, and wakes who polls it.
    pub(super) fn abort_one(&self, mut current: Current) {
        let waker = current.waker.take();
        self.report(current, &TaskEnd::Aborted, TaskSpan::default());
        if let Some(waker) = waker {
            let _ = contain(|| waker.wake()); // code of the runtime's, or of whoever polls `BackgroundTasks::run`
        }
    }

    /// Whoever cuts tasks off counts as a batch until their ends are reported: so [`Runner::idle`](crate::Runner::idle) waits for that,
    /// though the batch that ran them may have ended.
    fn cut_ends(&self) {
        if let Some(runner) = &self.runner {
            runner.batch_ended();
        }
    }

    /// Ends a task aborted, if it is here: `Some(false)` for a blocking task that runs, which cannot be stopped.
    pub(crate) fn cancel(&self, id: TaskId) -> Option<bool> {
        let mut state = lock(&self.state);
        let (current, task) = if let Some((key, current)) = state.currents.find(id) {
            if current.label.blocking && current.begun.is_some() {
                return Some(false);
            }
            (state.currents.take(key)?, None)
        } else {
            let task = state.tasks.remove(id)?;
            (Current::new(task.label(self.arrived)), Some(task))
        };
        self.count_batch();
        self.leave_if_empty(state);
        let _ = contain_drop(task);
        self.abort_one(current);
        self.cut_ends();
        Some(true)
    }

    /// Rows for the tasks that are in the queue now.
    pub(crate) fn infos(&self, now: Instant) -> Vec<TaskInfo> {
        let state = lock(&self.state);
        self.infos_of(&state.currents, &state.tasks, now)
    }

    pub(super) fn infos_of(
        &self,
        currents: &Currents,
        tasks: &TaskList,
        now: Instant,
    ) -> Vec<TaskInfo> {
        let request = self.request();
        let currents = currents.iter().map(|current| current.info(request, now));
        let waiting = tasks.labels(self.arrived).into_iter();
        currents
            .chain(waiting.map(|label| info(&label, None, request, now)))
            .collect()
    }
}
