//! [`SpillingJob`]: a job that a shutdown has claimed and whose end has not been reported.

use std::{mem, sync::Arc};

use tokio::time::Instant;

use super::stored::StoredJob;
use crate::{
    Runner, TaskEnd, TaskInfo, queue::claim::Claim, shared::unfinished::Unfinished,
    util::sync::lock,
};

/// The shutdown's report lists the job, as spilled or unfinished, before its end is reported. So a
/// caller that waits for the end finds the job in the list. Dropping this ends the job with `end`.
pub(super) struct SpillingJob {
    runner: Runner,
    /// `None` once the end has been reported.
    claim: Option<Claim>,
    /// `None` once a push has taken it.
    pub(super) stored: Option<StoredJob>,
    pub(super) info: TaskInfo,
    /// `Aborted`, unless the store takes the job or the job would not run.
    end: TaskEnd,
    /// Why the store did not take the job.
    error: Option<String>,
    is_named: bool,
}

impl SpillingJob {
    /// Returns true if the task is a job with a stored form, and its queue is not held. A worker
    /// would run a held job even if the transaction that it waits for is rolled back.
    pub(super) fn is_for_store(claim: &Claim) -> bool {
        !claim.queue().is_held() && stored_of(claim).is_some()
    }

    /// Stops the claimed job. If the job had begun, its stored form counts that as an attempt.
    pub(super) fn new(runner: &Runner, mut claim: Claim, now: Instant) -> Self {
        let attempts = u32::from(claim.begun.is_some());
        let stored = stored_of(&claim).map(|stored| stored.clone().with_attempts(attempts));
        claim.stop();
        Self {
            runner: runner.clone(),
            info: claim.info(now),
            stored,
            claim: Some(claim),
            end: TaskEnd::Aborted,
            error: None,
            is_named: false,
        }
    }

    /// Returns false if the job would not run here now. Such a job is not pushed.
    pub(super) fn may_run(&mut self) -> bool {
        let waits = self.claim.as_ref().filter(|claim| claim.begun.is_none());
        if let Some(Err(end)) = waits.map(|claim| claim.queue().may_run(|| None)) {
            self.end = end;
        }
        matches!(self.end, TaskEnd::Aborted)
    }

    /// Records the store's answer, and lists the job in the report.
    pub(super) fn answered(mut self, pushed: Result<(), String>) -> Self {
        match pushed {
            Ok(()) => self.end = TaskEnd::Spilled,
            Err(error) => self.error = Some(error),
        }
        self.name();
        self
    }

    fn name(&mut self) {
        if mem::replace(&mut self.is_named, true) {
            return;
        }
        let owner = Arc::clone(self.runner.owner());
        self.name_in(&mut lock(&owner.shared.unfinished));
    }

    fn name_in(&mut self, unfinished: &mut Unfinished) {
        match self.end {
            TaskEnd::Spilled => unfinished.spilled.push(self.info.clone()),
            TaskEnd::Aborted => {
                unfinished.aborted.push(self.info.clone());
                let error = self.error.take();
                unfinished
                    .spill_error
                    .get_or_insert_with(|| error.unwrap_or_else(|| NO_ANSWER.into()));
            }
            _ => {}
        }
    }
}

fn stored_of(claim: &Claim) -> Option<&StoredJob> {
    claim.label.attachment.as_ref()?.downcast_ref()
}

const NO_ANSWER: &str =
    "it had not answered when the shutdown's time was over; see `spill_timeout`";

impl Drop for SpillingJob {
    fn drop(&mut self) {
        self.name();
        if let Some(claim) = self.claim.take() {
            claim.tell(&self.end);
        }
    }
}
