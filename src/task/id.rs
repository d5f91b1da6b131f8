//! [`TaskId`].

use std::{fmt, num::ParseIntError, str::FromStr};

/// Tells one task from every other of the same runner.
///
/// Ids grow in the order in which the runner came to know of the tasks. They say nothing of the
/// order in which tasks of different requests run. A task that no runner knows yet has the id 0.
///
/// As text it is the number that the log has as `task.id`, so that an operator can end a task that
/// the log names. It is no secret, and easily guessed: a route that takes one is for operators.
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
    /// The id of a task that no runner knows yet.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(id: u64) -> Self {
        Self(id)
    }

    /// Returns the number, as for JSON or a metric.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// Takes any number. [`Runner::cancel`](crate::Runner::cancel) says whether there is such a task.
impl From<u64> for TaskId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// Parses what its [`Display`](fmt::Display) writes.
impl FromStr for TaskId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
