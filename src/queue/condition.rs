//! Whether a task runs when its turn has come.

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
    /// Nothing is set that could keep the task from running, or cut it short: most are so.
    #[inline]
    pub(crate) fn runs_unconditionally(&self, task: &Task) -> bool {
        let is_responded = self.outcome.get().is_none_or(ResponseOutcome::is_responded);
        let asks = self.settings().is_some_and(Settings::asks);
        is_responded && !asks && task.has_no_extras()
    }

    /// By the task's own condition, or the runner's, or by default when there was a response. Not to be called with the lock
    /// held.
    ///
    /// # Errors
    ///
    /// The end of a task that does not run.
    #[inline]
    pub(crate) fn may_run(&self, own: impl FnOnce() -> Option<RunIf>) -> Result<(), TaskEnd> {
        if self.stops_on_failure() && lock(&self.state).stopped {
            return Err(TaskEnd::Skipped(SkipReason::EarlierFailure));
        }
        let Some(outcome) = self.outcome.get() else {
            return Ok(()); // there is no response to ask about
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
