//! [`TaskContext`]: what a running task may ask.

use std::{borrow::Cow, fmt, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::request_line::RequestLine;
use crate::{ResponseOutcome, util::contain::woken_contained};

/// Where a context gets its answers: the queue that holds the task.
pub(crate) trait ContextSource: Send + Sync {
    fn outcome(&self) -> Option<&ResponseOutcome>;

    /// Cancelled when the runner begins to shut down. `None` without a runner.
    fn closing(&self) -> Option<&CancellationToken>;

    fn request(&self) -> Option<&RequestLine>;
}

/// What a running task may ask: how its response went, whether the runner shuts down, the task's
/// name.
///
/// [`Task::with_context`](crate::Task::with_context) and
/// [`Task::blocking_with_context`](crate::Task::blocking_with_context) hand it out. It may be kept
/// and cloned.
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
    source: Arc<dyn ContextSource>,
    name: Cow<'static, str>,
}

impl TaskContext {
    pub(crate) fn new(source: Arc<dyn ContextSource>, name: Cow<'static, str>) -> Self {
        Self { source, name }
    }

    #[cfg(feature = "jobs")]
    pub(crate) fn request_line(&self) -> Option<&RequestLine> {
        self.source.request()
    }

    /// Returns how the response ended, or `None` for a task of no request
    /// ([`Runner::add_task`](crate::Runner::add_task),
    /// [`BackgroundTasks::run`](crate::BackgroundTasks::run)).
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
        self.source.outcome()
    }

    /// Returns true once [`Runner::shutdown`](crate::Runner::shutdown) was called: for a loop in
    /// blocking code.
    ///
    /// ```
    /// use tower_background_tasks::Task;
    ///
    /// let export = Task::blocking_with_context(|cx| {
    ///     for page in 0..1_000 {
    ///         if cx.is_shutting_down() {
    ///             return Err("stopped half-way");
    ///         }
    ///         println!("page {page}");
    ///     }
    ///     Ok(())
    /// });
    /// # drop(export);
    /// ```
    pub fn is_shutting_down(&self) -> bool {
        let closing = self.source.closing();
        closing.is_some_and(CancellationToken::is_cancelled)
    }

    /// Waits until [`Runner::shutdown`](crate::Runner::shutdown) is called. The task then has the
    /// rest of the grace period to end.
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the waiting and nothing else.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_background_tasks::Task;
    ///
    /// let poller = Task::with_context(|cx| async move {
    ///     while !cx.is_shutting_down() {
    ///         println!("poll");
    ///         tokio::select! {
    ///             () = cx.shutting_down() => {}
    ///             () = tokio::time::sleep(Duration::from_secs(1)) => {}
    ///         }
    ///     }
    /// });
    /// # drop(poller);
    /// ```
    pub async fn shutting_down(&self) {
        match self.source.closing() {
            Some(closing) => woken_contained(closing.cancelled()).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the task's name.
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
