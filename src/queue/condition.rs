//! Decides whether a dequeued task runs.

use super::Queue;
use crate::{
    outcome::ResponseOutcome,
    shared::settings::Settings,
    task::{
        Task,
        end::{SkipReason, TaskEnd},
        node::RunIf,
    },
    util::{contain::contain, sync::lock},
};

impl Queue {
    /// True if nothing can keep the task from running or end it early: it has no settings, the
    /// runner has none that affect it, and no response is missing. This holds for most tasks.
    #[inline]
    pub(crate) fn runs_unconditionally(&self, task: &Task) -> bool {
        let is_responded = self.outcome.get().is_none_or(ResponseOutcome::is_responded);
        let attends = self.settings().is_some_and(Settings::attends);
        is_responded && !attends && task.has_no_extras()
    }

    /// Applies the task's own condition, or else the runner's. Without either, the task runs if
    /// there was a response. A condition is user code, so the caller must not hold the lock.
    ///
    /// # Errors
    ///
    /// This returns the task's end as an error when the task does not run.
    #[inline]
    pub(crate) fn may_run(&self, own: impl FnOnce() -> Option<RunIf>) -> Result<(), TaskEnd> {
        if self.stops_on_failure() && lock(&self.state).stopped {
            return Err(TaskEnd::Skipped(SkipReason::EarlierFailure));
        }
        let Some(outcome) = self.outcome.get() else {
            return Ok(()); // there is no response to check
        };
        let of_the_runner = self
            .settings()
            .and_then(|settings| settings.run_if.as_deref());
        let holds = match (own(), of_the_runner) {
            (Some(condition), _) => contain(|| condition(outcome)),
            (None, Some(condition)) => contain(|| condition(outcome)),
            (None, None) if outcome.is_responded() => return Ok(()),
            (None, None) => return Err(TaskEnd::Skipped(SkipReason::NoResponse)),
        };
        match holds {
            Ok(true) => Ok(()),
            Ok(false) => Err(TaskEnd::Skipped(SkipReason::Condition)),
            Err(panic) => Err(TaskEnd::Panicked(panic)),
        }
    }
}
