//! [`TaskContext`]: what a running task may ask.

use std::{borrow::Cow, fmt, sync::Arc};

use http::Extensions;
use tokio_util::sync::CancellationToken;

use super::{id::TaskId, request_info::RequestInfo};
use crate::{ResponseOutcome, util::contain::woken_contained};

/// Where a context gets its answers: the queue that holds the task.
pub(crate) trait ContextSource: Send + Sync {
    fn outcome(&self) -> Option<&ResponseOutcome>;

    /// Cancelled when the runner begins to shut down. `None` without a runner.
    fn closing(&self) -> Option<&CancellationToken>;

    fn request(&self) -> Option<&RequestInfo>;

    /// What was noted of the request.
    fn extensions(&self) -> &Extensions;

    /// Notes how far a running task has come.
    fn set_progress(&self, id: TaskId, done: f32);
}

/// What a running task may ask: how its response went, what its request was, whether the runner
/// shuts down, the task's name.
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
    id: TaskId,
    name: Cow<'static, str>,
}

impl TaskContext {
    pub(crate) fn new(source: Arc<dyn ContextSource>, id: TaskId, name: Cow<'static, str>) -> Self {
        Self { source, id, name }
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

    /// Returns the task's request. `None` for a task of no request
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

    /// Returns what [`RunnerBuilder::capture`](crate::RunnerBuilder::capture) took from the task's
    /// request. `None` if nothing of this type was taken, and where there is
    /// [no request](Self::request).
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

    /// Returns true once the runner shuts down ([`shutting_down`](Self::shutting_down)): for a loop in
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

    /// Waits until the runner shuts down: until [`Runner::shutdown`](crate::Runner::shutdown) is
    /// called, or a [`Runner::serve`](crate::Runner::serve) stops its server. The task then has the
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

    /// Tells how far the task has come, from 0.0 to 1.0, for
    /// [`TaskInfo::progress`](crate::TaskInfo::progress) and the dashboard. It is kept until the next
    /// call, and costs a short lock. Numbers outside are taken for the nearest within, and NaN
    /// changes nothing. Once the task has ended, this does nothing.
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
