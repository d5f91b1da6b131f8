//! [`TaskInfo`]: a task that has not ended, as [`Runner::tasks`](crate::Runner::tasks) and
//! [`ShutdownReport`](crate::ShutdownReport) show it.

use std::{borrow::Cow, fmt, panic::Location, time::Duration};

use http::Method;
use tokio::time::Instant;

use crate::task::{id::TaskId, kind::TaskKind, label::Label, request_line::RequestLine};

/// A task that waits or runs: a snapshot.
///
/// Its [`Display`](fmt::Display) is one line for a log: `welcome-mail: running for 3.2s, for POST /signup, added at
/// src/signup.rs:17:11`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_background_tasks::{Runner, Task, TaskState};
///
/// let runner = Runner::new();
/// runner.add_task(Task::new(std::future::pending::<()>()).named("stuck"));
/// tokio::task::yield_now().await;
/// tokio::task::yield_now().await;
/// let tasks = runner.tasks();
/// assert_eq!((tasks[0].name(), tasks[0].state()), ("stuck", TaskState::Running));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TaskInfo {
    pub(crate) id: TaskId,
    pub(crate) name: Cow<'static, str>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) kind: TaskKind,
    pub(crate) age: Duration,
    /// `None` while it waits.
    pub(crate) running_for: Option<Duration>,
    pub(crate) request: Option<RequestLine>,
    /// It has timed out.
    pub(crate) is_overdue: bool,
}

/// What a task that has not ended does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// It waits: for its response to end, for its turn within its request, or for a place under the runner's limits.
    Waiting,
    /// It runs.
    Running,
    /// It is blocking, and has timed out: it has ended ([`TimedOut`](crate::TaskEnd::TimedOut)), but cannot be stopped. Until it
    /// returns it holds its thread, and its place under the limits.
    Overdue,
}

impl TaskInfo {
    /// A row for a task that began at `begun`, or that waits.
    pub(crate) fn new(
        label: &Label,
        begun: Option<Instant>,
        request: Option<&RequestLine>,
        now: Instant,
    ) -> Self {
        Self {
            id: label.id,
            name: label.name(),
            location: label.location,
            kind: label.kind,
            age: now.duration_since(label.added),
            running_for: begun.map(|begun| now.duration_since(begun)),
            request: request.cloned(),
            is_overdue: false,
        }
    }

    /// The same task, which has timed out and whose thread goes on.
    pub(crate) fn overdue(self) -> Self {
        Self {
            is_overdue: true,
            ..self
        }
    }

    /// Its number within the runner.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where in the source it was added.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Whether it is async or blocking.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Whether it waits or runs.
    pub fn state(&self) -> TaskState {
        match self.running_for {
            _ if self.is_overdue => TaskState::Overdue,
            Some(_) => TaskState::Running,
            None => TaskState::Waiting,
        }
    }

    /// The time since it was added.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// The time since it began to run, or `None` while it waits.
    pub fn running_for(&self) -> Option<Duration> {
        self.running_for
    }

    /// The method of its request, or `None` for a task of no request, and of one that came through
    /// [`Runner::attach`](crate::Runner::attach), which is not told.
    pub fn method(&self) -> Option<&Method> {
        self.request.as_ref().map(|request| &request.method)
    }

    /// The path of its request, without the query, or `None` as for [`method`](Self::method).
    pub fn path(&self) -> Option<&str> {
        self.request.as_ref()?.path()
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_debug(); // it may be a user's input, and this a line of a log
        match self.running_for {
            Some(time) if self.is_overdue => {
                write!(f, "{name}: timed out, its thread running for {time:.1?}")?;
            }
            Some(time) => write!(f, "{name}: running for {time:.1?}")?,
            None => write!(f, "{name}: waiting for {:.1?}", self.age)?,
        }
        if let Some(method) = self.method() {
            write!(f, ", for {method} {}", self.path().unwrap_or_default())?;
        }
        write!(f, ", added at {}", self.location)
    }
}

/// Those added first in front.
pub(crate) fn in_order(mut tasks: Vec<TaskInfo>) -> Vec<TaskInfo> {
    tasks.sort_by_key(TaskInfo::id);
    tasks
}
