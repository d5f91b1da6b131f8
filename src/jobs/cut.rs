//! [`Cut`]: a job that a shutdown has taken out of its queue, on its way to its one end.

use std::sync::Arc;

use tokio::time::Instant;

use super::{spill::Spilled, store::text_of};
use crate::{
    BoxError, Runner, StoredJob, TaskEnd, TaskInfo, executor::execution::may_run,
    observe::span::TaskSpan, queue::Queue, queue::current::Current, util::contain::contain,
};

/// A job that was cut off, and has not been reported.
pub(super) struct Cut {
    runner: Runner,
    queue: Arc<Queue>,
    /// `None` once it is reported.
    current: Option<Current>,
    /// `None` once it is pushed.
    pub(super) stored: Option<StoredJob>,
    pub(super) row: TaskInfo,
    /// `Aborted`, unless the store takes it, or it would not have run.
    pub(super) end: TaskEnd,
    /// Why the store did not take it.
    error: Option<String>,
}

impl Cut {
    pub(super) fn new(
        runner: &Runner,
        queue: &Arc<Queue>,
        mut current: Current,
        now: Instant,
    ) -> Option<Self> {
        let stored = Arc::unwrap_or_clone(current.label.kept.take()?);
        queue.count_batch(); // until it is reported
        Some(Self {
            runner: runner.clone(),
            queue: Arc::clone(queue),
            stored: Some(stored.with_attempts(current.begun.is_some().into())),
            row: current.info(queue.request(), now),
            current: Some(current),
            end: TaskEnd::Aborted,
            error: None,
        })
    }

    /// Wakes whoever polls the job, to drop it.
    pub(super) fn stop(&mut self) {
        let waker = self
            .current
            .as_mut()
            .and_then(|current| current.waker.take());
        if let Some(waker) = waker {
            let _ = contain(|| waker.wake()); // code of the runtime's
        }
    }

    /// A job that would not run here, if its turn came now, is not for a worker either.
    pub(super) fn judge(&mut self) {
        let waits = self
            .current
            .as_mut()
            .filter(|current| current.begun.is_none());
        if let (Some(current), Err(why)) = (waits, may_run(&self.queue, || None)) {
            current.skipped_by_choice = why.by_choice;
            self.end = why.end;
        }
    }

    pub(super) fn answered(mut self, pushed: Result<(), BoxError>) {
        match pushed {
            Ok(()) => self.end = TaskEnd::Spilled,
            Err(error) => self.error = Some(text_of(error)),
        }
    }

    fn name(&mut self, spilled: &mut Spilled) {
        match self.end {
            TaskEnd::Spilled => spilled.jobs.push(self.row.clone()),
            TaskEnd::Aborted => {
                self.runner.lock_unfinished().push(self.row.clone());
                let error = self.error.take();
                spilled
                    .error
                    .get_or_insert_with(|| error.unwrap_or_else(|| NO_ANSWER.into()));
            }
            _ => {}
        }
    }
}

const NO_ANSWER: &str =
    "it had not answered when the shutdown's time was over; see `spill_timeout`";

impl Drop for Cut {
    fn drop(&mut self) {
        let runner = self.runner.clone();
        runner
            .job_settings()
            .note_spilled(|spilled| self.name(spilled));
        if let Some(current) = self.current.take() {
            self.queue.report(current, &self.end, TaskSpan::default());
        }
        runner.batch_ended();
    }
}
