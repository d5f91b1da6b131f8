//! [`Task`]: its work and output, its name and id, how it ends, and what it can ask while it runs.
//!
//! This room does not know queues, runners or runtimes. It uses `outcome` and `util`.

pub(crate) mod add_error;
pub(crate) mod added_in;
pub(crate) mod around;
pub(crate) mod context;
pub(crate) mod end;
pub(crate) mod id;
pub(crate) mod into_task;
pub(crate) mod kind;
pub(crate) mod label;
pub(crate) mod node;
pub(crate) mod output;
pub(crate) mod request_info;
pub(crate) mod work;

use std::{
    borrow::Cow,
    fmt,
    panic::Location,
    task::{Context, Poll},
    time::Duration,
};

use sync_wrapper::SyncWrapper;
use tokio::time::Instant;

#[cfg(feature = "jobs")]
use self::label::Attachment;
use self::{
    added_in::AddedIn,
    context::TaskContext,
    id::TaskId,
    kind::TaskKind,
    label::Label,
    node::{Extras, Header, Link, Needs, Node, RunIf},
    output::{TaskOutput, TaskResult},
    work::{Async, AsyncWithContext, Blocking, BlockingWithContext, Form},
};
use crate::outcome::ResponseOutcome;

/// Work to do after the response: a future, or sync code for the blocking pool.
///
/// A bare future can be added as it is. Use a `Task` for work that needs a name, a timeout, a
/// condition, or the outcome of the response. Nothing of a task runs before it is added and its
/// response has ended. A `Task` that is dropped without being added never runs.
///
/// ```
/// use std::time::Duration;
/// use tower_background_tasks::{BackgroundTasks, ResponseOutcome, Task};
///
/// async fn signup(tasks: BackgroundTasks) -> &'static str {
///     let mail = async { println!("Welcome!") };
///     tasks.add_task(
///         Task::new(mail)
///             .named("welcome-mail")
///             .timeout(Duration::from_secs(30))
///             .run_if(ResponseOutcome::is_success),
///     );
///     "signed up"
/// }
/// ```
#[must_use = "a task does nothing unless it is added"]
pub struct Task {
    node: Link,
}

impl Task {
    /// Makes a task that awaits `future` on the async runtime.
    ///
    /// The future must not block its thread for long. For blocking code, use [`Task::blocking`].
    ///
    /// ```
    /// # use tower_background_tasks::Task;
    /// let task = Task::new(async { println!("after the response") });
    /// # drop(task);
    /// ```
    pub fn new<F>(future: F) -> Self
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        Self::from_work(Async { future })
    }

    /// Makes a task that calls `f` on Tokio's blocking pool, where it may block its thread.
    ///
    /// A blocking task that runs cannot be stopped: see [`Task::timeout`].
    ///
    /// ```
    /// # use tower_background_tasks::Task;
    /// let task = Task::blocking(|| std::fs::read_to_string("/etc/hostname"));
    /// # drop(task);
    /// ```
    pub fn blocking<F, R>(f: F) -> Self
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput + 'static,
    {
        Self::from_work(Blocking { call: Some(f) })
    }

    /// Like [`Task::new`], for a future that needs to know how the response went.
    ///
    /// The runner calls `f` when the task begins.
    ///
    /// ```
    /// # use tower_background_tasks::Task;
    /// let task = Task::with_context(|cx| async move {
    ///     if let Some(response) = cx.response() {
    ///         println!("{:?} after {:?}", response.end, response.elapsed);
    ///     }
    /// });
    /// # drop(task);
    /// ```
    pub fn with_context<C, F>(f: C) -> Self
    where
        C: FnOnce(TaskContext) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        Self::from_work(AsyncWithContext::Waiting { make: Some(f) })
    }

    /// Like [`Task::blocking`], for sync code that needs to know how the response went.
    ///
    /// ```
    /// # use tower_background_tasks::Task;
    /// let task = Task::blocking_with_context(|cx| {
    ///     let status = cx.response().and_then(|response| response.status);
    ///     println!("answered {status:?}");
    /// });
    /// # drop(task);
    /// ```
    pub fn blocking_with_context<C, R>(f: C) -> Self
    where
        C: FnOnce(TaskContext) -> R + Send + 'static,
        R: TaskOutput + 'static,
    {
        Self::from_work(BlockingWithContext { call: Some(f) })
    }

    /// Names the task in logs, reports and [`TaskContext::name`].
    ///
    /// The default name is the type name of the future or closure, such as
    /// `my_app::signup::send_mail`.
    ///
    /// ```
    /// # use tower_background_tasks::{BackgroundTasks, Task};
    /// let tasks = BackgroundTasks::new();
    /// tasks.add_task(Task::new(async {}).named("welcome-mail"));
    /// assert_eq!(tasks.names(), ["welcome-mail"]);
    /// ```
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.extras().name = Some(name.into());
        self
    }

    /// Ends the task [`TimedOut`](crate::TaskEnd::TimedOut) once it has run for `timeout`. The
    /// time that it waits does not count.
    ///
    /// An async task is dropped at its next await point. It is polled at least once, even if
    /// `timeout` is zero. A blocking task cannot be stopped. Its end is reported, and the
    /// request's next task begins. Its thread stays busy until the task returns, and the result is
    /// dropped.
    ///
    /// The runtime's timer must be enabled
    /// ([`enable_time`](tokio::runtime::Builder::enable_time)). Otherwise the task ends
    /// [`Failed`](crate::TaskEnd::Failed), with an error that says so.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_background_tasks::Task;
    /// let task = Task::new(std::future::pending::<()>()).timeout(Duration::from_secs(5));
    /// # drop(task);
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.extras().timeout = Some(timeout);
        self
    }

    /// Runs the task only if `condition` returns true for the outcome of the response. Otherwise
    /// the task ends [`Skipped`](crate::TaskEnd::Skipped).
    ///
    /// Without a condition, a task runs if there was a response
    /// ([`ResponseOutcome::is_responded`]), whatever its status and however its body ended. The
    /// runner calls `condition` after it has dequeued the task. It does not call it in
    /// [`Runner::add_task`](crate::Runner::add_task) and
    /// [`BackgroundTasks::run`](crate::BackgroundTasks::run), where there is no response. A second
    /// call to `run_if` replaces the first condition.
    ///
    /// ```
    /// use tower_background_tasks::{ResponseEnd, ResponseOutcome, Task};
    ///
    /// let receipt = Task::new(async {}).run_if(ResponseOutcome::is_success);
    /// let refund = Task::new(async {});
    /// let refund = refund.run_if(|response| response.end == ResponseEnd::Aborted);
    /// // This one runs even if the client disconnects before there is a response.
    /// let always = Task::new(async {}).run_if(|_| true);
    /// # drop((receipt, refund, always));
    /// ```
    pub fn run_if(
        mut self,
        condition: impl FnOnce(&ResponseOutcome) -> bool + Send + 'static,
    ) -> Self {
        self.extras().run_if = Some(SyncWrapper::new(Box::new(condition)));
        self
    }

    pub(crate) fn from_work(work: impl Form + 'static) -> Self {
        let header = Header {
            id: TaskId::NONE,
            location: Location::caller(), // until it is added
            added: None,
            extras: None,
        };
        Self {
            node: Box::pin(Node {
                next: None,
                header,
                work: SyncWrapper::new(work),
            }),
        }
    }

    /// Stores an attachment, which a shutdown reads from the task's label.
    #[cfg(feature = "jobs")]
    pub(crate) fn attach(&mut self, attachment: Attachment) {
        self.extras().attachment = Some(attachment);
    }

    /// Returns the job of a refused task.
    #[cfg(feature = "jobs")]
    pub(crate) fn take_job(&mut self) -> Option<Box<dyn std::any::Any + Send>> {
        self.node.as_mut().project().work.take_job()
    }

    fn extras(&mut self) -> &mut Extras {
        self.header_mut().extras.get_or_insert_default()
    }

    fn header_mut(&mut self) -> &mut Header {
        self.node.as_mut().project().header
    }

    /// Records where, when and in which span the task was added.
    #[inline]
    pub(crate) fn set_added(
        &mut self,
        location: &'static Location<'static>,
        added_in: Option<AddedIn>,
    ) {
        let header = self.header_mut();
        header.location = location;
        header.added = Some(Instant::now());
        if added_in.is_some() {
            self.extras().added_in = added_in;
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> TaskId {
        self.node.header.id
    }

    #[inline]
    pub(crate) fn set_id(&mut self, id: TaskId) {
        self.header_mut().id = id;
    }

    #[inline]
    pub(crate) fn kind(&self) -> TaskKind {
        self.node.kind()
    }

    /// True if the task has no name and no setting.
    #[inline]
    pub(crate) fn has_no_extras(&self) -> bool {
        self.node.header.extras.is_none()
    }

    #[inline]
    pub(crate) fn needs(&self) -> Needs {
        self.node.needs()
    }

    #[inline]
    pub(crate) fn timeout_after(&self) -> Option<Duration> {
        self.node.timeout()
    }

    #[inline]
    pub(crate) fn take_added_in(&mut self) -> Option<AddedIn> {
        let extras = self.header_mut().extras.as_mut();
        extras.and_then(|extras| extras.added_in.take())
    }

    #[inline]
    pub(crate) fn take_run_if(&mut self) -> Option<RunIf> {
        let extras = self.header_mut().extras.as_mut();
        let run_if = extras.and_then(|extras| extras.run_if.take());
        run_if.map(SyncWrapper::into_inner)
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn own_name(&self) -> label::Name {
        self.node.name()
    }

    pub(crate) fn name(&self) -> Cow<'static, str> {
        self.node.name().to_cow()
    }

    #[inline(always)]
    pub(crate) fn label(&self) -> Label {
        self.node.label()
    }

    #[inline]
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult> {
        self.node.as_mut().project().work.poll(cx, context)
    }

    #[inline]
    pub(crate) fn into_link(self) -> Link {
        self.node
    }

    #[inline]
    pub(crate) fn from_link(node: Link) -> Self {
        Self { node }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name())
            .field("blocking", &(self.kind() == TaskKind::Blocking))
            .field("timeout", &self.timeout_after())
            .finish_non_exhaustive()
    }
}
