//! [`TaskId`].

use std::{fmt, num::ParseIntError, str::FromStr};

/// Identifies a task within its runner.
///
/// Ids increase in the order in which tasks reach the runner. They say nothing about the order in
/// which tasks of different requests run. A task that has no runner yet has the id 0.
///
/// Its text is the `task.id` of the log, so an operator can cancel a task that the log names. Ids
/// are easy to guess: only operators should reach a route that takes one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::num::ParseIntError> {
/// use tower_background_tasks::{Runner, TaskId};
///
/// let runner = Runner::new();
/// runner.add_task(std::future::pending::<()>());
/// let in_the_log = runner.tasks()[0].id().to_string();
///
/// let id: TaskId = in_the_log.parse()?;
/// assert_eq!(id, TaskId::from(id.as_u64()));
/// assert!(runner.cancel(id));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u64);

impl TaskId {
    /// The id of a task that has no runner yet.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(id: u64) -> Self {
        Self(id)
    }

    /// Returns the number, for example for JSON or a metric.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// Accepts any number. [`Runner::cancel`](crate::Runner::cancel) returns false if there is no such
/// task.
impl From<u64> for TaskId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// Parses what [`Display`](fmt::Display) writes.
impl FromStr for TaskId {
    type Err = ParseIntError;

    /// # Errors
    ///
    /// This returns an error when the text is not an unsigned number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
