//! [`BackgroundTasks`]: the handle that handlers hold.

use std::{
    future::poll_fn,
    panic::Location,
    sync::Arc,
    task::{Context, Poll, ready},
};

use crate::{
    executor::execution::Execution,
    queue::Queue,
    task::{
        Task, add_error::AddTaskError, end::TaskEnd, id::TaskId, into_task::IntoTask,
        output::TaskOutput,
    },
    util::contain::contain_drop,
};

/// One request's tasks. They run after the response has ended.
///
/// Behind [`BackgroundTasksLayer`](crate::BackgroundTasksLayer) this is an axum extractor.
/// Elsewhere [`from_extensions`](Self::from_extensions) finds it. Clones are the same queue. A
/// handle may be kept, to add tasks while the body streams, in a running task, after an upgrade, or
/// long after the response. A task that is added after the response starts at once.
///
/// By default the tasks of one request run one after another, in the order added. Tasks of
/// different requests run side by side.
///
/// ```
/// use tower_background_tasks::BackgroundTasks;
///
/// async fn signup(tasks: BackgroundTasks) -> &'static str {
///     tasks.add_task(async { println!("a future") });
///     tasks.add_blocking_task(|| println!("sync code, on the blocking pool"));
///     "answered at once"
/// }
/// ```
///
/// # A queue of its own
///
/// [`BackgroundTasks::new`] makes a stand-alone queue:
///
/// - Return it with a response, and its tasks run behind the request's own.
/// - Hand it to [`Runner::attach`](crate::Runner::attach), if there is no layer.
/// - In a unit test, pass it to the handler, and look at [`names`](Self::names) or
///   [`run`](Self::run) it.
///
/// A stand-alone queue that no response takes is dropped with its tasks, and a warning names them.
/// A task that holds the very queue it waits in keeps it alive: both leak.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use tower_background_tasks::{BackgroundTasks, Task, TaskEnd};
/// # async fn signup(tasks: BackgroundTasks) {
/// #     tasks.add_task(Task::new(async {}).named("welcome-mail"));
/// # }
/// let tasks = BackgroundTasks::new();
/// signup(tasks.clone()).await;
/// assert_eq!(tasks.names(), ["welcome-mail"]);
/// let ends = tasks.run().await;
/// assert!(matches!(ends[..], [TaskEnd::Completed]));
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "tasks run when a response takes their queue: return it with the response, or pass it to `Runner::attach`"]
pub struct BackgroundTasks {
    queue: Arc<Queue>,
}

impl BackgroundTasks {
    /// Makes a stand-alone queue, to attach to a response or for a unit test.
    pub fn new() -> Self {
        Self {
            queue: Queue::stand_alone(),
        }
    }

    /// Adds a task: a future, or a [`Task`].
    ///
    /// **It runs when there was a response, whatever the status.** For 2xx and 3xx only, give it
    /// [`Task::run_if`]`(`[`ResponseOutcome::is_success`](crate::ResponseOutcome::is_success)`)`,
    /// or all tasks [`RunnerBuilder::run_if`](crate::RunnerBuilder::run_if).
    ///
    /// This never fails and never blocks. If the runner refuses the task, it ends
    /// [`Rejected`](TaskEnd::Rejected). Nothing of the task runs before the response has ended.
    ///
    /// ```
    /// # use tower_background_tasks::{BackgroundTasks, BoxError, Task};
    /// # async fn send_mail(to: String) -> Result<(), BoxError> { Ok(()) }
    /// # fn handler(tasks: BackgroundTasks) {
    /// tasks.add_task(send_mail("ferris@example.org".into()));
    /// tasks.add_task(Task::new(async {}).named("audit"));
    /// tasks.add_task(async {
    ///     send_mail("corro@example.org".into()).await?;
    ///     Ok::<(), BoxError>(()) // where `?` is used, Rust asks for the error's type
    /// });
    /// # }
    /// # handler(BackgroundTasks::new());
    /// ```
    #[track_caller]
    pub fn add_task(&self, task: impl IntoTask) {
        self.queue
            .add_or_reject(task.into_task(), Location::caller());
    }

    /// Adds a task, or gives it back if the runner refuses it, so that the handler can answer 503.
    ///
    /// A stand-alone queue takes every task, under the number 0 until a response takes the queue.
    /// Tasks that the runner then refuses end [`Rejected`](TaskEnd::Rejected). A [hold](Self::hold)
    /// that was dropped takes a task too, and ends it at once.
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// use tower_background_tasks::{AddTaskError, BackgroundTasks};
    ///
    /// async fn export(tasks: BackgroundTasks) -> Result<StatusCode, AddTaskError> {
    ///     // As a response, the error is a 503.
    ///     tasks.try_add_task(async { println!("exporting") })?;
    ///     Ok(StatusCode::ACCEPTED)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// This returns an error when too many tasks wait
    /// ([`RunnerBuilder::max_pending`](crate::RunnerBuilder::max_pending)), and when the runner has
    /// shut down. The error holds the task, which counts as never added.
    #[track_caller]
    pub fn try_add_task(&self, task: impl IntoTask) -> Result<TaskId, AddTaskError> {
        self.queue.add(task.into_task(), Location::caller())
    }

    /// Adds sync code, which runs on Tokio's blocking pool: for files, a database with a blocking
    /// driver, long computation.
    ///
    /// ```
    /// # use tower_background_tasks::BackgroundTasks;
    /// # fn handler(tasks: BackgroundTasks) {
    /// tasks.add_blocking_task(|| std::fs::read_to_string("/etc/hostname"));
    /// # }
    /// # handler(BackgroundTasks::new());
    /// ```
    #[track_caller]
    pub fn add_blocking_task<F, R>(&self, f: F)
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput + 'static,
    {
        self.queue
            .add_or_reject(Task::blocking(f), Location::caller());
    }

    /// Returns how many tasks wait in this queue.
    ///
    /// ```
    /// # use tower_background_tasks::BackgroundTasks;
    /// let tasks = BackgroundTasks::new();
    /// tasks.add_task(async {});
    /// assert_eq!(tasks.len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns true if no task waits in this queue.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the names of the waiting tasks, in the order in which they will run: for tests of a
    /// handler.
    ///
    /// ```
    /// # use tower_background_tasks::{BackgroundTasks, Task};
    /// let tasks = BackgroundTasks::new();
    /// tasks.add_task(Task::new(async {}).named("welcome-mail"));
    /// tasks.add_task(Task::blocking(|| ()).named("audit"));
    /// assert_eq!(tasks.names(), ["welcome-mail", "audit"]);
    /// ```
    pub fn names(&self) -> Vec<String> {
        self.queue.names().into_iter().map(String::from).collect()
    }

    /// Runs the queued tasks here and now, in order, and returns how each ended: for unit tests and
    /// scripts.
    ///
    /// Tasks that are added meanwhile run too. The runner's limits do not hold here.
    /// [`Task::run_if`] is not asked, as there is no response to judge. A stand-alone queue has no
    /// [`OnFailure::Stop`](crate::OnFailure::Stop), so every task runs. On a request's queue the
    /// runner's setting holds.
    ///
    /// This is meant for queues that no response takes. On a request's queue it takes the tasks
    /// that wait. Once the response has ended, the runner takes the others. They may then run
    /// beside the task that runs here, and [`Runner::idle`](crate::Runner::idle) does not wait for
    /// that one. Each task is run, and its end returned, by one call. A second call meanwhile, such
    /// as by a task that runs here, takes the tasks that wait.
    ///
    /// Blocking tasks go to the blocking pool if there is a runtime. Without one they run on this
    /// thread, and no timeout ends them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use tower_background_tasks::{BackgroundTasks, TaskEnd};
    ///
    /// let tasks = BackgroundTasks::new();
    /// tasks.add_task(async { "x".parse::<u16>() });
    /// let ends = tasks.run().await;
    /// let [TaskEnd::Failed(error)] = &ends[..] else { panic!("{ends:?}") };
    /// assert!(error.to_string().contains("invalid digit"));
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping this aborts the task that runs. The tasks behind it stay in the queue. A blocking
    /// task that has begun cannot be stopped: it counts as aborted, and its thread goes on.
    pub async fn run(&self) -> Vec<TaskEnd> {
        self.run_by_hand(None).await
    }

    /// Runs the queued tasks of this name here and now, in order, and returns how each ended. The
    /// others stay in the queue, in their order.
    ///
    /// A task's name is that of [`names`](Self::names). No task of this name is no error: nothing
    /// runs. All else is as for [`run`](Self::run): tasks of this name that are added meanwhile run
    /// too.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use tower_background_tasks::{BackgroundTasks, Task, TaskEnd};
    ///
    /// let tasks = BackgroundTasks::new();
    /// tasks.add_task(Task::new(async { println!("written") }).named("audit"));
    /// tasks.add_task(Task::new(async { Err::<(), _>("no mail server") }).named("mail"));
    /// let ends = tasks.run_named("mail").await;
    /// assert!(matches!(ends[..], [TaskEnd::Failed(_)]));
    /// assert_eq!(tasks.names(), ["audit"]);
    /// # drop(tasks.run().await);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As for [`run`](Self::run): dropping this aborts the task that runs, and all others stay in
    /// the queue.
    pub async fn run_named(&self, name: &str) -> Vec<TaskEnd> {
        self.run_by_hand(Some(name)).await
    }

    /// Runs the tasks of this name, or all.
    async fn run_by_hand(&self, name: Option<&str>) -> Vec<TaskEnd> {
        let queue = self.queue.root();
        let mut ends = Vec::new();
        while let Some(dequeued) = queue.take_by_hand(name) {
            let mut by_hand = ByHand(Execution::by_hand(&queue, &dequeued), &queue);
            ends.push(poll_fn(|cx| by_hand.poll(cx)).await);
        }
        ends
    }

    pub(crate) fn of(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

/// A task that is run by hand. If this is dropped before the task has ended, the task ends aborted.
struct ByHand<'a>(Option<Execution>, &'a Arc<Queue>);

impl ByHand<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        let end = match &mut self.0 {
            Some(execution) => ready!(execution.poll(self.1, cx)),
            None => TaskEnd::Aborted,
        };
        Poll::Ready(self.finish(end))
    }

    fn finish(&mut self, end: TaskEnd) -> TaskEnd {
        let Some(mut execution) = self.0.take() else {
            return end;
        };
        let ended = execution.conclude(self.1, end);
        self.1.settle(&ended);
        ended.end
    }
}

impl Drop for ByHand<'_> {
    fn drop(&mut self) {
        let _ = contain_drop(self.finish(TaskEnd::Aborted));
    }
}

impl Default for BackgroundTasks {
    fn default() -> Self {
        Self::new()
    }
}
