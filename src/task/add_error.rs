//! [`AddTaskError`].

use std::{error::Error, fmt};

use super::Task;

/// The error of [`BackgroundTasks::try_add_task`](crate::BackgroundTasks::try_add_task): the
/// runner refused the task. The error holds the task.
///
/// As an axum response this is a 503.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_background_tasks::{AddTaskError, Runner};
///
/// let runner = Runner::builder().max_pending(1).build();
/// assert!(runner.try_add_task(async {}).is_ok());
/// let refused = runner.try_add_task(async {}).unwrap_err();
/// assert!(matches!(refused, AddTaskError::Full(_)));
/// let again = refused.into_task(); // to try again, or to run it here and now
/// # drop(again);
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum AddTaskError {
    /// The limit [`RunnerBuilder::max_pending`](crate::RunnerBuilder::max_pending) is reached.
    Full(Task),
    /// The limit
    /// [`RunnerBuilder::max_awaiting_response`](crate::RunnerBuilder::max_awaiting_response) is
    /// reached.
    FullOfAwaiting(Task),
    /// The runner has shut down.
    Closed(Task),
}

impl AddTaskError {
    /// Returns the refused task.
    pub fn into_task(self) -> Task {
        match self {
            Self::Full(task) | Self::FullOfAwaiting(task) | Self::Closed(task) => task,
        }
    }
}

impl fmt::Display for AddTaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => {
                "too many background tasks are waiting: answer 503, or raise the runner's `max_pending`"
            }
            Self::FullOfAwaiting(_) => {
                "too many background tasks await their responses: answer 503, or raise the runner's \
                 `max_awaiting_response`"
            }
            Self::Closed(_) => {
                "the background task runner has shut down: stop the server before the runner"
            }
        })
    }
}

impl Error for AddTaskError {}

/// Why the runner refuses a task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Full,
    FullOfAwaiting,
    Closed,
}

impl Refusal {
    pub(crate) fn of(self, task: Task) -> AddTaskError {
        match self {
            Self::Full => AddTaskError::Full(task),
            Self::FullOfAwaiting => AddTaskError::FullOfAwaiting(task),
            Self::Closed => AddTaskError::Closed(task),
        }
    }
}
