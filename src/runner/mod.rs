//! [`Runner`]: where tasks run. It and the rooms behind it (batches, lanes, the crew) are the only ones that touch the runtime.

pub(crate) mod builder;
pub(crate) mod shutdown;

use std::{fmt, panic::Location, sync::Arc, time::Duration};

use http::{Method, Response, Version};
use http_body::Body;
use tokio::{runtime::Handle, sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "tracing")]
use crate::runner::builder::SpanRelation;
use crate::{
    AddTaskError, BackgroundTasks, BackgroundTasksLayer, IntoTask, OnFailure, Order, ResponseBody,
    ResponseOutcome, RunnerBuilder, Stats, Task, TaskEnd, TaskId, TaskInfo, TaskOutput, TaskReport,
    executor::admission::Admission,
    executor::batch::Batch,
    executor::crew::Crew,
    executor::lanes::Lanes,
    executor::start::Start,
    observe::metrics,
    observe::overdue::Overdue,
    observe::report::{self, Report},
    outcome::EndWatch,
    queue::Queue,
    runner::builder::Settings,
    shared::registry::Registry,
    shared::stats::{Counters, CountersHere},
    task::add_error::Refusal,
    util::contain::{contain, woken_contained},
    util::sync::{AtomicUsize, Mutex, MutexGuard, OnceLock, Ordering, fence_in_models, lock},
};

/// Runs tasks off the connections, and counts what becomes of each. Clones are the same runner.
///
/// A server has one, made beside its router, and asks it at the end what became of everything. Tasks outlive the `Runner`
/// handles: dropping them all stops nothing.
///
/// # Runtime
///
/// The runner remembers the Tokio runtime of the first request (or of the first task added to the runner itself) and runs
/// everything there, so that a body that is dropped on a foreign thread still has its tasks run. Without any runtime, and
/// when the runtime goes away, tasks end [`Aborted`](crate::TaskEnd::Aborted): from then on all of them, though there may be another
/// runtime. So each runtime has a runner of its own; in tests, where each test has a runtime, each test.
///
/// Async tasks of different requests share tasks of the runtime, one after another: up to 64 of them wait for the next request in each
/// of eight groups of threads, until the runner shuts down or its last handle is dropped. Blocking tasks share closures on the blocking
/// pool. So [`tokio::task::id`] does not tell background tasks apart; [`TaskId`](crate::TaskId) does.
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
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    runtime: OnceLock<Handle>,
    counters: Counters,
    /// `None` without limits.
    admission: Option<Admission>,
    /// See [`Runner::is_plain`].
    is_plain: bool,
    /// How many tasks wait; kept where `max_pending` limits them.
    pending: AtomicUsize,
    registry: Registry,
    overdue: Overdue,
    lanes: Arc<Lanes<Start>>,
    crew: Arc<Crew<Batch>>,
    /// Cancelled when a shutdown begins.
    closing: CancellationToken,
    /// What shutdowns have aborted. It may be locked by whoever locks queues then, not the other way round.
    unfinished: Mutex<Vec<TaskInfo>>,
    /// Told whenever there is nothing left to wait for, while someone waits.
    quiet: Notify,
    /// How many wait for `quiet`, so that without any the end of a task or batch costs one read.
    ///
    /// A waiter registers here before it looks at the counters; an end is counted before it looks here. Both in one total
    /// order: one of the two sees the other.
    waiting_for_quiet: AtomicUsize,
}

impl Runner {
    /// A runner without limits.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A runner with limits, timeouts, an observer: see [`RunnerBuilder`].
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder::default()
    }

    pub(crate) fn with_settings(mut settings: Settings) -> Self {
        let runtime = OnceLock::new();
        if let Some(handle) = settings.runtime.take() {
            let _ = runtime.set(handle);
        }
        let _ = contain(metrics::describe); // a recorder is code of the user's
        let is_plain = settings.is_plain();
        let limited = settings.max_running.or(settings.max_blocking).is_some();
        let admission =
            limited.then(|| Admission::new(settings.max_running, settings.max_blocking));
        Self {
            shared: Arc::new(Shared {
                settings,
                is_plain,
                runtime,
                admission,
                counters: Counters::default(),
                pending: AtomicUsize::new(0),
                registry: Registry::default(),
                overdue: Overdue::default(),
                lanes: Arc::default(),
                crew: Arc::default(),
                closing: CancellationToken::new(),
                unfinished: Mutex::default(),
                quiet: Notify::new(),
                waiting_for_quiet: AtomicUsize::new(0),
            }),
        }
    }

    /// The layer that gives each request its [`BackgroundTasks`], run by this runner.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_background_tasks::{BackgroundTasks, Runner};
    ///
    /// let runner = Runner::new();
    /// let app: Router = Router::new()
    ///     .route("/", post(async |tasks: BackgroundTasks| tasks.add_task(async {})))
    ///     .layer(runner.layer());
    /// ```
    pub fn layer(&self) -> BackgroundTasksLayer {
        BackgroundTasksLayer::with_runner(self.clone())
    }

    /// Runs `tasks` when `response` has ended: for a service without [`BackgroundTasksLayer`].
    ///
    /// The time the response took counts from this call. The request is not known here: an answer to HEAD whose body says that it has
    /// content counts as [`Aborted`](crate::ResponseEnd::Aborted), and over HTTP/2 one whose length is reached as
    /// [`Completed`](crate::ResponseEnd::Completed), though it may have announced trailers that are missing. A queue that has its
    /// runner already, from a layer or an earlier call, is left alone: its tasks wait for that response.
    ///
    /// ```
    /// use http::Response;
    /// use tower_background_tasks::{BackgroundTasks, Runner};
    ///
    /// fn respond(runner: &Runner) -> Response<impl http_body::Body> {
    ///     let tasks = BackgroundTasks::new();
    ///     tasks.add_task(async { println!("answered") });
    ///     runner.attach(Response::new(String::from("hello")), tasks)
    /// }
    /// # let _ = respond(&Runner::new());
    /// ```
    pub fn attach<B: Body>(
        &self,
        response: Response<B>,
        tasks: BackgroundTasks,
    ) -> Response<ResponseBody<B>> {
        self.remember_runtime();
        let queue = Queue::of_response(self.clone());
        queue.merge(tasks.queue());
        drop(tasks);
        let watch = EndWatch::new(queue, &Method::GET, Version::HTTP_11);
        ResponseBody::watched(response, Some(watch))
    }

    /// Adds a task of no request: it starts at once, beside all others.
    ///
    /// It never fails: where there is no runtime, the task ends [`Aborted`](crate::TaskEnd::Aborted), and is counted.
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

    /// Adds sync code of no request: it starts at once on the blocking pool.
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
        self.remember_runtime();
        Queue::of_no_request(self.clone()).add_or_reject(task, location);
    }

    /// Adds a task of no request, or gives it back where the runner does not take it.
    ///
    /// # Errors
    ///
    /// This returns an error when too many tasks wait ([`RunnerBuilder::max_pending`]), and when the runner has shut down.
    #[track_caller]
    pub fn try_add_task(&self, task: impl IntoTask) -> Result<TaskId, AddTaskError> {
        self.remember_runtime();
        Queue::of_no_request(self.clone()).add(task.into_task(), Location::caller())
    }

    /// What runs and what waits now, those added first in front: what a shutdown would wait for. And the blocking tasks that have
    /// timed out and whose threads go on ([`TaskState::Overdue`](crate::TaskState::Overdue)).
    ///
    /// This looks at each queue for a moment, one after the other: a call costs time and memory for each task there is. To keep track
    /// of them costs each request with tasks two short locks more, whether this is called or not.
    pub fn tasks(&self) -> Vec<TaskInfo> {
        let now = Instant::now();
        let queues = self.shared.registry.queues();
        let tasks = queues.iter().flat_map(|queue| queue.infos(now));
        in_order(tasks.chain(self.overdue().infos(now)).collect())
    }

    /// Waits until every task whose response has ended is done: in a test, that everything a request promised has happened.
    ///
    /// Tasks that wait for their response to end do not count, nor do those that are [run by hand](BackgroundTasks::run). What is added
    /// while this waits does: it returns at the first moment when nothing is on the runner, which under a steady load may never come. A
    /// task that waits for this waits for itself, for ever.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use tower_background_tasks::Runner;
    /// let runner = Runner::new();
    /// runner.add_task(async { tokio::task::yield_now().await });
    /// runner.idle().await;
    /// assert_eq!(runner.stats().completed, 1);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the waiting and nothing else.
    pub async fn idle(&self) {
        self.until(Counters::is_quiet).await;
    }

    /// Waits until the counters are as wanted, which only an end can bring about.
    async fn until(&self, wanted: fn(&Counters) -> bool) {
        let _waiting = Waiting::new(&self.shared.waiting_for_quiet);
        loop {
            let quiet = self.shared.quiet.notified();
            fence_in_models();
            if wanted(&self.shared.counters) {
                return;
            }
            woken_contained(quiet).await;
        }
    }

    #[inline]
    pub(crate) fn tell_if_quiet(&self) {
        let shared = &self.shared;
        fence_in_models();
        if shared.waiting_for_quiet.load(Ordering::SeqCst) == 0 {
            return;
        }
        if shared.counters.is_quiet() || shared.counters.is_balanced() {
            shared.quiet.notify_waiters(); // all of them wait under a contained waker
        }
    }

    /// What has become of the tasks so far.
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats()
    }

    /// Ends a task [`Aborted`](TaskEnd::Aborted), whether it waits or runs; its siblings go on. An async task that runs is dropped
    /// at its next await point.
    ///
    /// False when no such task is left, or it is a blocking one that runs, which cannot be stopped. What a task captured that waits
    /// for a place under the runner's limits, or for a blocking thread, is dropped only when that comes; [`idle`](Self::idle) waits for it.
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
        let queues = self.shared.registry.queues();
        queues
            .iter()
            .find_map(|queue| queue.cancel(id))
            .unwrap_or(false)
    }

    #[inline]
    pub(crate) fn remember_runtime(&self) {
        if self.shared.runtime.get().is_none() {
            self.remember_current_runtime();
        }
    }

    #[cold]
    fn remember_current_runtime(&self) {
        if let Ok(current) = Handle::try_current() {
            let _ = self.shared.runtime.set(current);
        }
    }

    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.remember_runtime();
        self.shared.runtime.get()
    }

    #[inline]
    pub(crate) fn count_added(&self) -> TaskId {
        self.shared.counters.task_added()
    }

    #[inline]
    pub(crate) fn task_begun(&self) {
        self.counters().task_begun();
        self.give_back_pending_place();
    }

    /// Tells of an end; [`count_ended`](Self::count_ended) goes behind it.
    #[inline]
    pub(crate) fn report(&self, report: &Report<'_>) {
        if self.sees(report.end) {
            self.observe(report);
        }
    }

    /// Counts an end. From now on whoever waits for it may hear of it.
    #[inline]
    pub(crate) fn count_ended(&self, end: &TaskEnd, has_begun: bool) {
        let counters = self.counters();
        if !has_begun {
            counters.task_begun();
            if !matches!(end, TaskEnd::Rejected) {
                self.give_back_pending_place();
            }
        }
        counters.task_ended(end);
        self.tell_if_quiet();
    }

    /// Whether anybody may see how long tasks waited and ran: an observer, a recorder, a subscriber of the log.
    #[inline]
    pub(crate) fn is_observed(&self) -> bool {
        self.is_measured() || report::has_subscriber()
    }

    #[inline]
    fn is_measured(&self) -> bool {
        cfg!(feature = "metrics") || self.shared.settings.on_task_end.is_some()
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn span_relation(&self) -> SpanRelation {
        self.shared.settings.span_relation
    }

    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn slow_poll(&self) -> Option<Duration> {
        self.shared.settings.slow_poll
    }

    /// Whether anybody sees this end.
    #[inline]
    fn sees(&self, end: &TaskEnd) -> bool {
        self.is_measured() || report::is_logged(end)
    }

    fn observe(&self, report: &Report<'_>) {
        // Each is code of the user's: a recorder, a subscriber, an observer. None of them silences the next.
        let _ = contain(|| metrics::ended(report));
        report::log(report);
        if let Some(observer) = &self.shared.settings.on_task_end {
            let _ = contain(|| observer(&TaskReport::new(report)));
        }
    }

    /// Takes one of the `max_pending` places.
    #[inline]
    pub(crate) fn take_pending_place(&self) -> Result<(), Refusal> {
        let Some(limit) = self.shared.settings.max_pending else {
            return Ok(());
        };
        let one_more = |pending| (pending < limit).then_some(pending + 1);
        let pending = &self.shared.pending;
        match pending.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::Full),
        }
    }

    #[inline]
    pub(crate) fn give_back_pending_place(&self) {
        if self.shared.settings.max_pending.is_some() {
            self.shared.pending.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[inline]
    pub(crate) fn order(&self) -> Order {
        self.shared.settings.order
    }

    #[inline]
    pub(crate) fn on_failure(&self) -> OnFailure {
        self.shared.settings.on_failure
    }

    #[inline]
    pub(crate) fn task_timeout(&self) -> Option<Duration> {
        self.shared.settings.task_timeout
    }

    /// True where no setting has a say in whether and how long a task runs: most tasks then have nothing to look at.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.shared.is_plain
    }

    /// Where this thread counts; [`tell_if_quiet`](Self::tell_if_quiet) goes behind each end.
    #[inline]
    pub(crate) fn counters(&self) -> &CountersHere {
        self.shared.counters.here()
    }

    #[inline]
    pub(crate) fn run_if(&self) -> Option<&(dyn Fn(&ResponseOutcome) -> bool + Send + Sync)> {
        self.shared.settings.run_if.as_deref()
    }

    #[inline]
    pub(crate) fn admission(&self) -> Option<&Admission> {
        self.shared.admission.as_ref()
    }

    #[cfg(feature = "jobs")]
    pub(crate) fn job_settings(&self) -> &crate::jobs::JobSettings {
        &self.shared.settings.jobs
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    pub(crate) fn overdue(&self) -> &Overdue {
        &self.shared.overdue
    }

    pub(crate) fn lanes(&self) -> &Arc<Lanes<Start>> {
        &self.shared.lanes
    }

    pub(crate) fn crew(&self) -> &Arc<Crew<Batch>> {
        &self.shared.crew
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.shared.closing
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.shared.counters.is_balanced()
    }

    /// Waits until every task that was added has ended.
    pub(crate) async fn drained(&self) {
        self.until(Counters::is_balanced).await;
    }

    /// The rows of what was aborted, to add to.
    pub(crate) fn lock_unfinished(&self) -> MutexGuard<'_, Vec<TaskInfo>> {
        lock(&self.shared.unfinished)
    }

    /// What any shutdown has aborted.
    pub(crate) fn unfinished(&self) -> Vec<TaskInfo> {
        in_order(self.lock_unfinished().clone())
    }

    pub(crate) fn batch_begun(&self) {
        self.counters().batch_begun();
    }

    pub(crate) fn batch_ended(&self) {
        self.counters().batch_ended();
        self.tell_if_quiet();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.lanes.close(); // those that wait for batches would wait for ever
        self.settings.let_go();
    }
}

/// Those added first in front.
pub(crate) fn in_order(mut tasks: Vec<TaskInfo>) -> Vec<TaskInfo> {
    tasks.sort_by_key(TaskInfo::id);
    tasks
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts one who waits, for as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
