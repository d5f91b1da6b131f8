//! [`Report`]: what is told of a task that has ended.

use std::borrow::Cow;

use tokio::time::Instant;

use crate::{ResponseOutcome, TaskEnd, task::Label};

/// Everything known of a task at its end.
#[cfg_attr(
    not(feature = "tracing"),
    expect(dead_code, reason = "the log is its only reader")
)]
pub(crate) struct Report<'a> {
    pub(crate) label: &'a Label,
    pub(crate) end: &'a TaskEnd,
    /// `None` where the task never got its turn.
    pub(crate) begun: Option<Instant>,
    pub(crate) ended: Instant,
    pub(crate) response: Option<&'a ResponseOutcome>,
}

impl Report<'_> {
    /// Logs the end, so that a failure is never silent: without any set-up it is in the log under the task's name.
    pub(crate) fn log(&self) {
        #[cfg(feature = "tracing")]
        {
            let begun = self.begun.unwrap_or(self.ended);
            let waited = begun.duration_since(self.label.added);
            let ran = self.ended.duration_since(begun);
            macro_rules! log {
                ($level:ident) => {
                    tracing::$level!(
                        target: "tower_background_tasks",
                        { task.id = %self.label.id,
                        task.name = %self.label.name,
                        task.kind = if self.label.blocking { "blocking" } else { "async" },
                        task.location = %self.label.location,
                        response.end = self.response.map(|response| tracing::field::debug(response.end)),
                        response.status = self.response.and_then(|response| response.status).map(|status| status.as_u16()),
                        ?waited,
                        ?ran },
                        "background task {}",
                        self.end,
                    )
                };
            }
            match self.end {
                TaskEnd::Completed => log!(debug),
                TaskEnd::Panicked(_) => log!(error),
                TaskEnd::Skipped if self.response.is_some_and(ResponseOutcome::is_responded) => {
                    log!(debug)
                }
                TaskEnd::Failed(_)
                | TaskEnd::TimedOut
                | TaskEnd::Skipped
                | TaskEnd::Rejected
                | TaskEnd::Aborted => log!(warn),
            }
        }
    }
}

/// A stand-alone queue was dropped with these tasks in it.
pub(crate) fn never_attached(names: &[Cow<'static, str>]) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_background_tasks",
        tasks = ?names,
        "background tasks dropped: no response took their queue; is `BackgroundTasksLayer` applied?"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = names;
}
