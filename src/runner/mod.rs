//! [`Runner`]: where tasks run, as its users see it; its builder, its wait for tests and its
//! shutdown. It uses `executor`, `queue` and below.

pub(crate) mod builder;
pub(crate) mod idle;
pub(crate) mod serve;
pub(crate) mod shutdown;
#[cfg(feature = "signal")]
mod signals;

use std::{fmt, panic::Location, sync::Arc};

use self::builder::RunnerBuilder;
use crate::{
    executor::Executor,
    observe::{info::TaskInfo, limit_use::LimitUse},
    queue::{Queue, owner::Owner},
    shared::{Shared, settings::Settings, stats::Stats},
    task::{Task, add_error::AddTaskError, id::TaskId, into_task::IntoTask, output::TaskOutput},
    util::contain::woken_contained,
};
#[cfg(feature = "metrics")]
use crate::{observe::metrics::Gauges, util::contain::contain};

/// Runs tasks off the connections, and counts how each ends. Clones are the same runner.
///
/// A server makes one runner beside its router. At the end, the server asks it how all tasks ended.
/// Tasks outlive the `Runner` handles: dropping every handle stops nothing.
///
/// # Runtime
///
/// Tasks run on the runtime of their request: the one on which it arrived, or on which a task of no
/// request is added. If that is gone, they run on the runtime on which their response ends, or
/// else on the first that the runner saw. So one runner serves any number of runtimes, one after
/// another and side by side.
/// [`RunnerBuilder::runtime`] sets one for all. Without any runtime, and when the runtime goes
/// away, tasks end [`Aborted`](crate::TaskEnd::Aborted).
///
/// The async tasks of a request share one task of the runtime. Its consecutive blocking tasks share
/// one closure on the blocking pool. So [`tokio::task::id`] does not tell them apart;
/// [`TaskId`](crate::TaskId) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_background_tasks::Runner;
///
/// let runner = Runner::new();
/// runner.add_task(async { println!("warm the cache") });
/// runner.idle().await;
/// assert_eq!(runner.stats().completed, 1);
/// # }
/// ```
#[derive(Clone)]
pub struct Runner {
    owner: Arc<Owner>,
}

impl Runner {
    /// Makes a runner without limits.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Makes a builder, for a runner with limits, timeouts or an observer.
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder::default()
    }

    /// Makes a runner that runs nothing and records what is added: for unit tests of routes.
    ///
    /// A task is recorded and ends at once, [`Skipped`](crate::TaskEnd::Skipped) with the reason
    /// [`Recorded`](crate::SkipReason::Recorded), however it is added. Its work is dropped within
    /// the call that added it. So no response has to end, and [`idle`](Self::idle) returns at once.
    ///
    /// - A task is recorded whatever its condition: no response is judged.
    /// - [Held](crate::BackgroundTasks::hold) tasks are recorded when they are released. Those that
    ///   are not released are skipped as on any runner, and not recorded.
    /// - The tasks of a stand-alone queue are recorded when a response takes the queue.
    /// - A task that would be added by another task is not recorded, as none runs.
    /// - [Shielded](crate::BackgroundTasks::shield) work is a part of its handler, and no task here.
    ///   It runs in place, as without a runner.
    ///
    /// [`recorded`](Self::recorded) returns the tasks, and
    /// [`assert_added!`](crate::assert_added) checks their names.
    /// [`RunnerBuilder::recording`] makes one that has other settings too.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use tower::ServiceExt; // for `oneshot`
    /// use tower_background_tasks::{BackgroundTasks, Runner, Task};
    ///
    /// async fn signup(tasks: BackgroundTasks) -> &'static str {
    ///     let mail = Task::new(async { panic!("no mail server here") });
    ///     tasks.add_task(mail.named("welcome-mail"));
    ///     "signed up"
    /// }
    ///
    /// let runner = Runner::recording();
    /// let app = Router::new().route("/signup", post(signup)).layer(runner.layer());
    /// let request = Request::post("/signup").body(Body::empty()).unwrap();
    /// let response = app.oneshot(request).await.unwrap();
    /// assert!(response.status().is_success());
    ///
    /// let recorded = runner.recorded();
    /// assert_eq!((recorded[0].name(), recorded[0].path()), ("welcome-mail", Some("/signup")));
    /// # }
    /// ```
    pub fn recording() -> Self {
        Self::builder().recording().build()
    }

    fn with_settings(settings: Settings) -> Self {
        let executor = Executor::new(&settings);
        let owner = Owner::new(settings, Box::new(executor));
        Self::of(Arc::new(owner))
    }

    /// Adds a task of no request. It starts at once, beside all others.
    ///
    /// This never fails. A task that the runner refuses ends
    /// [`Rejected`](crate::TaskEnd::Rejected). Without a runtime, the task ends
    /// [`Aborted`](crate::TaskEnd::Aborted), and is counted.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use tower_background_tasks::Runner;
    /// let runner = Runner::new();
    /// runner.add_task(async { println!("warm the cache") });
    /// # runner.idle().await;
    /// # }
    /// ```
    #[track_caller]
    pub fn add_task(&self, task: impl IntoTask) {
        self.add(task.into_task(), Location::caller());
    }

    /// Adds sync code of no request. It starts at once on the blocking pool.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use tower_background_tasks::Runner;
    /// let runner = Runner::new();
    /// runner.add_blocking_task(|| std::fs::read_to_string("/etc/hostname"));
    /// # runner.idle().await;
    /// # }
    /// ```
    #[track_caller]
    pub fn add_blocking_task<F, R>(&self, f: F)
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput + 'static,
    {
        self.add(Task::blocking(f), Location::caller());
    }

    fn add(&self, task: Task, location: &'static Location<'static>) {
        Queue::of_no_request(Arc::clone(&self.owner)).add_or_reject(task, location);
    }

    /// Adds a task of no request, or gives it back if the runner refuses it.
    ///
    /// # Errors
    ///
    /// This returns an error when too many tasks wait ([`RunnerBuilder::max_pending`]), and when
    /// the runner has shut down.
    #[track_caller]
    pub fn try_add_task(&self, task: impl IntoTask) -> Result<TaskId, AddTaskError> {
        Queue::of_no_request(Arc::clone(&self.owner)).add(task.into_task(), Location::caller())
    }

    /// Returns the tasks that run or wait now, in the order added. A shutdown would wait for these.
    /// It also returns blocking tasks that timed out and whose threads still run
    /// ([`TaskState::Overdue`](crate::TaskState::Overdue)).
    ///
    /// This locks each queue for a moment, one after another. A call costs time and memory for each
    /// task there is. Keeping track of the tasks costs each request with tasks two short locks
    /// more, whether this is called or not.
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.owner.infos()
    }

    /// Returns the tasks that a [recording](Self::recording) runner was given, in the order in which
    /// it would have queued them: a held task's place is that of its release. Each row shows its
    /// task as it was when it was recorded: it waited.
    ///
    /// On any other runner this is empty. [`tasks`](Self::tasks) returns what runs or waits there.
    ///
    /// ```
    /// use tower_background_tasks::{Runner, Task};
    ///
    /// let runner = Runner::recording();
    /// runner.add_task(Task::new(async {}).named("cleanup"));
    /// assert_eq!(runner.recorded()[0].name(), "cleanup");
    /// ```
    pub fn recorded(&self) -> Vec<TaskInfo> {
        self.owner.recorded()
    }

    /// Returns true until a shutdown is near: for a readiness probe, such as Kubernetes' `/readyz`.
    ///
    /// It is false from the signal that ends [`Runner::serve`] on, and once
    /// [`shutdown`](Self::shutdown) was called.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use http::StatusCode;
    /// use tower_background_tasks::Runner;
    ///
    /// let runner = Runner::new();
    /// let readyz = || match runner.is_ready() {
    ///     true => StatusCode::OK,
    ///     false => StatusCode::SERVICE_UNAVAILABLE,
    /// };
    /// assert_eq!(readyz(), StatusCode::OK);
    /// let _ = runner.shutdown(std::time::Duration::ZERO).await;
    /// assert_eq!(readyz(), StatusCode::SERVICE_UNAVAILABLE);
    /// # }
    /// ```
    pub fn is_ready(&self) -> bool {
        self.shared().is_ready()
    }

    /// Returns true once a shutdown has begun. Requests and tasks in flight still have their time.
    pub fn is_shutting_down(&self) -> bool {
        self.shared().closing.is_cancelled()
    }

    /// Waits until a shutdown begins.
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the waiting and nothing else.
    pub async fn shutting_down(&self) {
        woken_contained(self.shared().closing.cancelled()).await;
    }

    /// Returns what has become of the tasks so far.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Returns the limits that are set, and how full they are.
    ///
    /// ```
    /// use tower_background_tasks::Runner;
    ///
    /// let runner = Runner::builder().max_running(8).build();
    /// let limits = runner.limits();
    /// assert_eq!((limits[0].name, limits[0].used, limits[0].limit), ("max_running", 0, 8));
    /// ```
    pub fn limits(&self) -> Vec<LimitUse> {
        self.owner.limits()
    }

    /// Records the gauges that change too often to be recorded at each change: how full the limits
    /// are, how many tasks await their response, and how many are overdue. For a handler of
    /// `/metrics`, just before it renders them, or for a loop where they are pushed.
    ///
    /// ```
    /// # #[cfg(feature = "metrics")] {
    /// use tower_background_tasks::Runner;
    ///
    /// # struct Prometheus;
    /// # impl Prometheus { fn render(&self) -> String { String::new() } }
    /// async fn metrics(runner: Runner, prometheus: Prometheus) -> String {
    ///     runner.record_gauges();
    ///     prometheus.render()
    /// }
    /// # }
    /// ```
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn record_gauges(&self) {
        let shared = self.shared();
        let gauges = Gauges {
            awaiting_response: self.stats().awaiting_response,
            overdue: shared.overdue(),
            limits: self.limits(),
        };
        let _ = contain(|| gauges.record()); // a recorder is user code
    }

    /// Ends a task [`Aborted`](crate::TaskEnd::Aborted), whether it waits or runs. Its siblings go
    /// on. A task that waits is dropped before this returns. An async task that runs is dropped at
    /// its next await point, and one that has just begun may yet reach its first.
    ///
    /// Returns false if no unfinished task has this id, or if the task is a blocking one that runs:
    /// it cannot be stopped.
    ///
    /// This looks through the runner's tasks, as [`tasks`](Self::tasks) does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use tower_background_tasks::Runner;
    /// let runner = Runner::new();
    /// let id = runner.try_add_task(std::future::pending::<()>()).unwrap();
    /// assert!(runner.cancel(id));
    /// assert!(!runner.cancel(id), "it has ended");
    /// runner.idle().await;
    /// assert_eq!(runner.stats().aborted, 1);
    /// # }
    /// ```
    pub fn cancel(&self, id: TaskId) -> bool {
        self.owner.cancel(id)
    }

    pub(crate) fn of(owner: Arc<Owner>) -> Self {
        Self { owner }
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
