//! [`TaskContext`]: what a running task may ask.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{ResponseOutcome, queue::Queue};

/// What a running task may ask: how its response went, and what it is called.
///
/// [`Task::with_context`](crate::Task::with_context) and
/// [`Task::blocking_with_context`](crate::Task::blocking_with_context) hand it out. It may be kept and cloned.
///
/// ```
/// use tower_background_tasks::{BackgroundTasks, Task};
///
/// let tasks = BackgroundTasks::new();
/// tasks.add_task(Task::with_context(|cx| async move {
///     println!("{}: {:?}", cx.name(), cx.response());
/// }));
/// ```
#[derive(Clone)]
pub struct TaskContext {
    queue: Arc<Queue>,
    name: Cow<'static, str>,
}

impl TaskContext {
    pub(crate) fn new(queue: Arc<Queue>, name: Cow<'static, str>) -> Self {
        Self { queue, name }
    }

    /// How the response ended, or `None` for a task of no request
    /// ([`Runner::add_task`](crate::Runner::add_task), [`BackgroundTasks::run`](crate::BackgroundTasks::run)).
    ///
    /// "Ended" means handed whole to the server, not received by the client.
    ///
    /// ```
    /// use tower_background_tasks::{ResponseEnd, Task};
    ///
    /// let refund = Task::with_context(|cx| async move {
    ///     if cx.response().is_some_and(|response| response.end == ResponseEnd::Aborted) {
    ///         println!("the client left before it had everything");
    ///     }
    /// });
    /// # drop(refund);
    /// ```
    pub fn response(&self) -> Option<&ResponseOutcome> {
        self.queue.outcome()
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("name", &self.name)
            .field("response", &self.response())
            .finish_non_exhaustive()
    }
}
