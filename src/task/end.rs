//! [`TaskEnd`]: how a task ended.

use std::{error::Error, fmt, iter};

use super::output::BoxError;
use crate::util::{contain::contain, panic::TaskPanic};

/// How a task ended. Every added task ends in exactly one of these.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use tower_background_tasks::BackgroundTasks;
/// let tasks = BackgroundTasks::new();
/// tasks.add_task(async { Err::<(), _>("the mail server is down") });
/// for end in tasks.run().await {
///     assert_eq!(end.to_string(), "failed: the mail server is down");
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskEnd {
    /// The task ran and returned `()` or `Ok`.
    Completed,
    /// The task ran and returned this error.
    Failed(BoxError),
    /// The task panicked in its own code, its condition or its destructor.
    Panicked(TaskPanic),
    /// The task ran longer than its timeout.
    TimedOut,
    /// The task did not run, for this reason.
    Skipped(SkipReason),
    /// The runner refused the task: a limit was reached
    /// ([`max_pending`](crate::RunnerBuilder::max_pending),
    /// [`max_awaiting_response`](crate::RunnerBuilder::max_awaiting_response)), or the runner has
    /// shut down. The call that added the task drops it. If its destructor always adds it again,
    /// that recursion overflows the stack.
    Rejected,
    /// The task was dropped while it waited or ran. It was cancelled
    /// ([`Runner::cancel`](crate::Runner::cancel)), the runner shut down, there was no runtime, or
    /// its runtime shut down. A blocking task that runs at a shutdown also ends so, but its thread
    /// goes on.
    Aborted,
    /// The task is a job that had not ended when the runner shut down. The
    /// [`spill_store`](crate::RunnerBuilder::spill_store) now holds it for a worker to run. A job
    /// that was running may have done part or all of its work.
    #[cfg(feature = "jobs")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
    Spilled,
}

/// Why a task did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The condition did not hold: the task's ([`Task::run_if`](crate::Task::run_if)), or else the
    /// runner's.
    Condition,
    /// There was no response, and neither the task nor the runner has a condition.
    NoResponse,
    /// An earlier task of the request failed, and [`OnFailure::Stop`](crate::OnFailure::Stop) is
    /// set.
    EarlierFailure,
    /// The task was held ([`BackgroundTasks::hold`](crate::BackgroundTasks::hold)) and not
    /// released.
    NotReleased,
    /// The runner only records ([`Runner::recording`](crate::Runner::recording)).
    Recorded,
}

impl TaskEnd {
    /// True if a trace shows this end as an error: the task failed, or was rejected or aborted.
    pub(crate) fn is_error(&self) -> bool {
        self.is_failure() || matches!(self, Self::Rejected | Self::Aborted)
    }

    /// True if the task ran and failed.
    #[inline]
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Panicked(_) | Self::TimedOut)
    }
}

impl TaskEnd {
    /// The values of [`as_str`](Self::as_str), by [`index`](Self::index).
    pub(crate) const WORDS: &'static [&'static str] = &[
        "completed",
        "failed",
        "panicked",
        "timed_out",
        "skipped",
        "rejected",
        "aborted",
        #[cfg(feature = "jobs")]
        "spilled",
    ];

    /// Returns one word, for fields and labels: `completed`, `failed`, `panicked`, `timed_out`,
    /// `skipped`, `rejected`, `aborted`, or `spilled`.
    ///
    /// ```
    /// use tower_background_tasks::TaskEnd;
    ///
    /// assert_eq!(TaskEnd::TimedOut.as_str(), "timed_out");
    /// ```
    pub fn as_str(&self) -> &'static str {
        Self::WORDS[self.index()]
    }

    /// Returns the number of this kind of end, from 0.
    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Completed => 0,
            Self::Failed(_) => 1,
            Self::Panicked(_) => 2,
            Self::TimedOut => 3,
            Self::Skipped(_) => 4,
            Self::Rejected => 5,
            Self::Aborted => 6,
            #[cfg(feature = "jobs")]
            Self::Spilled => 7,
        }
    }

    /// Returns the words for a log line.
    #[cfg(feature = "tracing")]
    pub(crate) fn in_words(&self) -> &'static str {
        match self {
            Self::TimedOut => "timed out",
            other => other.as_str(),
        }
    }

    /// Returns the text of the task's error or panic.
    #[cfg(any(feature = "dashboard", feature = "tracing"))]
    pub(crate) fn error(&self) -> Option<String> {
        match self {
            Self::Failed(error) => Some(with_causes(&**error)),
            Self::Panicked(panic) => Some(panic.message().to_owned()),
            _ => None,
        }
    }
}

/// A few words. The text of an error is followed by its causes (`connection error: refused`),
/// unless it already contains them.
impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Failed(error) => write!(f, "failed: {}", with_causes(&**error)),
            Self::Panicked(panic) => write!(f, "panicked: {panic}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
            Self::Rejected => f.write_str("rejected"),
            Self::Aborted => f.write_str("aborted"),
            #[cfg(feature = "jobs")]
            Self::Spilled => f.write_str("handed to the store"),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Condition => "its condition did not hold",
            Self::NoResponse => "there was no response",
            Self::EarlierFailure => "a task before it failed",
            Self::NotReleased => "it was held and not released",
            Self::Recorded => "the runner only records",
        })
    }
}

/// Returns the text of an error, followed by each cause that the text does not contain. Formatting
/// an error is user code, so its panic is contained.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let text = contain(|| {
        let mut text = error.to_string();
        for cause in iter::successors(error.source(), |&cause| cause.source()) {
            let cause = cause.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        text
    });
    text.unwrap_or_else(|_| "its error cannot be shown".into())
}
