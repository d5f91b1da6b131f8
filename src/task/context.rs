//! [`TaskContext`]: what a running task can ask.

use std::{borrow::Cow, fmt, sync::Arc};

use http::Extensions;
use tokio_util::sync::CancellationToken;

use super::{id::TaskId, request_info::RequestInfo};
use crate::{ResponseOutcome, util::contain::woken_contained};

/// Answers a context: the queue that holds the task.
pub(crate) trait ContextSource: Send + Sync {
    fn outcome(&self) -> Option<&ResponseOutcome>;

    /// Cancelled when the runner begins to shut down. `None` without a runner.
    fn closing(&self) -> Option<&CancellationToken>;

    fn request(&self) -> Option<&RequestInfo>;

    /// The values that were captured from the request.
    fn extensions(&self) -> &Extensions;

    /// Records the progress of a running task.
    fn set_progress(&self, id: TaskId, done: f32);
}

/// Tells a running task how its response ended, what its request was, what it is called, and
/// whether the runner is shutting down.
///
/// [`Task::with_context`](crate::Task::with_context) and
/// [`Task::blocking_with_context`](crate::Task::blocking_with_context) pass it to the task. The
/// task may clone and keep it.
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
    id: TaskId,
    name: Cow<'static, str>,
}

impl TaskContext {
    pub(crate) fn new(source: Arc<dyn ContextSource>, id: TaskId, name: Cow<'static, str>) -> Self {
        Self { source, id, name }
    }

    /// Returns how the response ended. Returns `None` for a task of no request
    /// ([`Runner::add_task`](crate::Runner::add_task)) and in
    /// [`BackgroundTasks::run`](crate::BackgroundTasks::run).
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

    /// Returns the task's request. Returns `None` for a task of no request
    /// ([`Runner::add_task`](crate::Runner::add_task)), and where the request is unknown
    /// ([`Runner::attach`](crate::Runner::attach), a stand-alone queue).
    ///
    /// ```
    /// use tower_background_tasks::Task;
    ///
    /// let audit = Task::with_context(|cx| async move {
    ///     if let Some(request) = cx.request() {
    ///         println!("{} {}", request.method(), request.path().unwrap_or_default());
    ///     }
    /// });
    /// # drop(audit);
    /// ```
    pub fn request(&self) -> Option<&RequestInfo> {
        self.source.request()
    }

    /// Returns the value that [`RunnerBuilder::capture`](crate::RunnerBuilder::capture) took from
    /// the task's request. Returns `None` if it took none of this type, and without a
    /// [request](Self::request).
    ///
    /// ```
    /// use tower_background_tasks::{Runner, Task};
    ///
    /// #[derive(Clone)]
    /// struct Tenant(String);
    ///
    /// let mail = Task::with_context(|cx| async move {
    ///     let tenant = cx.get::<Tenant>().map(|tenant| &*tenant.0);
    ///     println!("mail of {}", tenant.unwrap_or("nobody"));
    /// });
    /// # drop(mail);
    /// ```
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.source.extensions().get()
    }

    /// Returns true once the runner shuts down, as [`shutting_down`](Self::shutting_down) defines
    /// it. Use it in a loop of blocking code.
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

    /// Waits until the runner shuts down: until [`Runner::shutdown`](crate::Runner::shutdown) is
    /// called, or until [`Runner::serve`](crate::Runner::serve) stops its server. The task then
    /// has the rest of the grace period to end. Without a runner this waits forever.
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

    /// Sets how far the task has come, from 0.0 to 1.0, for
    /// [`TaskInfo::progress`](crate::TaskInfo::progress) and the dashboard. The value stays until
    /// the next call. A value outside the range becomes the nearest one inside it. NaN changes
    /// nothing, and neither does a call after the task has ended, unless it is a timed-out blocking
    /// task that still runs. Each call briefly takes a lock.
    ///
    /// ```
    /// use tower_background_tasks::Task;
    ///
    /// let export = Task::blocking_with_context(|cx| {
    ///     for page in 0..100 {
    ///         cx.progress(f64::from(page) / 100.0);
    ///         println!("page {page}");
    ///     }
    /// });
    /// # drop(export);
    /// ```
    pub fn progress(&self, done: f64) {
        if !done.is_nan() {
            self.source
                .set_progress(self.id, done.clamp(0.0, 1.0) as f32);
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
