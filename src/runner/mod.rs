//! [`Runner`]: the public handle, its builder, its wait for tests and its shutdown. It uses
//! `executor`, `queue` and below.

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

/// Runs tasks off the connections, and counts how each ends. All clones refer to the same runner.
///
/// A server makes one runner together with its router. At its end, the server asks the runner how
/// all tasks ended. Dropping every `Runner` handle stops no task.
///
/// # Runtime
///
/// A task runs on the runtime on which its request arrived. A task of no request runs on the
/// runtime on which it was added. If that runtime is gone, the task runs on the one on which its
/// response ends, or else on the first that the runner saw. So one runner serves any number of
/// runtimes, one after another and side by side. [`RunnerBuilder::runtime`] sets one runtime for
/// all tasks. Without a runtime, and when the runtime shuts down, tasks end
/// [`Aborted`](crate::TaskEnd::Aborted).
///
/// The async tasks of a request share one Tokio task. Its consecutive blocking tasks share one
/// closure on the blocking pool. So [`tokio::task::id`] does not distinguish them, but
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

    /// Makes a builder for a runner with limits, timeouts or an observer.
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder::default()
    }

    /// Makes a runner that runs nothing and records the tasks that are added, for unit tests of
    /// routes.
    ///
    /// Each task is recorded and ends at once, [`Skipped`](crate::TaskEnd::Skipped) with the
    /// reason [`Recorded`](crate::SkipReason::Recorded). The call that adds the task drops its
    /// work. So no response has to end, and [`idle`](Self::idle) returns at once.
    ///
    /// - A task is recorded whatever its condition, as there is no response to check.
    /// - [Held](crate::BackgroundTasks::hold) tasks are recorded when they are released. Tasks
    ///   that are not released are skipped, as on any runner, and are not recorded.
    /// - The tasks of a stand-alone queue are recorded when a response takes the queue.
    /// - A task that another task would add is not recorded, as no task runs.
    /// - [Shielded](crate::BackgroundTasks::shield) work is part of its handler and not a task
    ///   here. It runs in place, as without a runner.
    ///
    /// [`recorded`](Self::recorded) returns the tasks, and [`assert_added!`](crate::assert_added)
    /// checks their names. [`RunnerBuilder::recording`] combines this with other settings.
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
    /// [`Aborted`](crate::TaskEnd::Aborted). Both are counted.
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

    /// Adds a task of no request. If the runner refuses the task, the error holds it.
    ///
    /// # Errors
    ///
    /// This returns an error when too many tasks wait ([`RunnerBuilder::max_pending`]), or when
    /// the runner has shut down.
    #[track_caller]
    pub fn try_add_task(&self, task: impl IntoTask) -> Result<TaskId, AddTaskError> {
        Queue::of_no_request(Arc::clone(&self.owner)).add(task.into_task(), Location::caller())
    }

    /// Returns the tasks that run or wait now, in the order added. A shutdown would wait for
    /// these. Blocking tasks that timed out while their threads still run are listed too
    /// ([`TaskState::Overdue`](crate::TaskState::Overdue)).
    ///
    /// This locks one queue after another, each briefly. A call costs time and memory for each
    /// task. Whether this is called or not, tracking costs each request with tasks two more short
    /// locks.
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.owner.infos()
    }

    /// Returns the tasks that a [recording](Self::recording) runner was given, in the order in
    /// which it would have queued them. A held task is listed when it is released. Each row shows
    /// its task as waiting, as it was when it was recorded.
    ///
    /// This is empty on any other runner. There, [`tasks`](Self::tasks) returns the tasks that run
    /// or wait.
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

    /// Returns true until a shutdown is near, for a readiness probe such as Kubernetes' `/readyz`.
    ///
    /// This returns false once [`Runner::serve`] has received its signal, and once
    /// [`shutdown`](Self::shutdown) has been called.
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

    /// Returns true once a shutdown has begun. Open requests and unfinished tasks still have time
    /// to end.
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

    /// Returns how many tasks wait and run now, and how many have ended.
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
    /// are, how many tasks await their response, and how many are overdue. Call it in a `/metrics`
    /// handler just before rendering, or in a loop if metrics are pushed.
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

    /// Ends a task [`Aborted`](crate::TaskEnd::Aborted), whether it waits or runs. Its siblings
    /// continue. A waiting task is dropped before this returns. A running async task is dropped at
    /// its next await point. A task that has just begun may still reach its first await point.
    ///
    /// Returns false if no unfinished task has this id. Also returns false for a blocking task
    /// that runs, as it cannot be stopped.
    ///
    /// This searches all of the runner's queues, as [`tasks`](Self::tasks) does.
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
