//! [`TaskInfo`]: one task in [`Runner::tasks`](crate::Runner::tasks) and in a
//! [`ShutdownReport`](crate::ShutdownReport).

use std::{borrow::Cow, fmt, panic::Location, time::Duration};

use http::Method;
use tokio::time::Instant;

use crate::task::{id::TaskId, kind::TaskKind, label::Label, request_info::RequestInfo};

/// A snapshot of a task that waits or runs. A task that was recorded or rejected shows as waiting.
///
/// Its [`Display`](fmt::Display) is one line for a log: `welcome-mail: running for 3.2s, for POST
/// /signup, added at src/signup.rs:17:11`.
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
    /// `None` while the task waits.
    pub(crate) running_for: Option<Duration>,
    pub(crate) request: Option<RequestInfo>,
    /// True if the task has timed out and its code still runs.
    pub(crate) is_overdue: bool,
    pub(crate) progress: Option<f64>,
}

/// Whether a task waits or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// The task has not begun. It waits for its response to end or for a release, for earlier
    /// tasks, for a permit of the runner's limits, or for a thread.
    Waiting,
    /// The task has begun.
    Running,
    /// The task is blocking and has ended [`TimedOut`](crate::TaskEnd::TimedOut), but its code
    /// still runs, because nothing can stop it. Until the code returns, it holds its thread and
    /// permit.
    Overdue,
}

impl TaskInfo {
    /// Makes the row of a task. `begun` is `None` for a task that waits.
    pub(crate) fn new(
        label: &Label,
        begun: Option<Instant>,
        request: Option<&RequestInfo>,
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
            progress: None,
        }
    }

    /// Returns the task's number within the runner.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Returns the task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where in the source the task was added.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns whether the task is async or blocking.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Returns whether the task waits or runs.
    pub fn state(&self) -> TaskState {
        match self.running_for {
            _ if self.is_overdue => TaskState::Overdue,
            Some(_) => TaskState::Running,
            None => TaskState::Waiting,
        }
    }

    /// Returns the time since the task was added.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Returns the time since the task began to run, or `None` while it waits.
    pub fn running_for(&self) -> Option<Duration> {
        self.running_for
    }

    /// Returns the progress that the task last reported with
    /// [`TaskContext::progress`](crate::TaskContext::progress), from 0.0 to 1.0. Returns `None` if
    /// the task has reported none.
    pub fn progress(&self) -> Option<f64> {
        self.progress
    }

    /// Returns the method of the task's request. Returns `None` if the task belongs to no request.
    /// Also returns `None` after [`Runner::attach`](crate::Runner::attach), where the request is
    /// unknown.
    pub fn method(&self) -> Option<&Method> {
        self.request.as_ref().map(|request| &request.method)
    }

    /// Returns the path of the task's request, without the query. Returns `None` as
    /// [`method`](Self::method) does, and for a request without a path (CONNECT).
    pub fn path(&self) -> Option<&str> {
        self.request.as_ref()?.path()
    }

    /// Returns the task's request, or `None` as [`method`](Self::method) does.
    pub fn request(&self) -> Option<&RequestInfo> {
        self.request.as_ref()
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The name may be user input. Escaping keeps it on one line of the log.
        let name = self.name.escape_debug();
        match self.running_for {
            Some(time) if self.is_overdue => {
                write!(f, "{name}: timed out, its thread running for {time:.1?}")?;
            }
            Some(time) => write!(f, "{name}: running for {time:.1?}")?,
            None => write!(f, "{name}: waiting for {:.1?}", self.age)?,
        }
        if let Some(request) = &self.request {
            f.write_str(", for ")?;
            request.fmt_line(f)?;
        }
        write!(f, ", added at {}", self.location)
    }
}

/// Sorts the tasks in the order in which they were added. If a task has two rows, this keeps the
/// first.
pub(crate) fn in_order(mut tasks: Vec<TaskInfo>) -> Vec<TaskInfo> {
    tasks.sort_by_key(TaskInfo::id);
    tasks.dedup_by_key(|task| task.id);
    tasks
}
