//! [`Runner`]: where tasks run. The only room that touches the runtime.

use std::{fmt, panic::Location, sync::Arc};

use http::{Method, Response};
use http_body::Body;
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    BackgroundTasks, BackgroundTasksLayer, IntoTask, ResponseBody, Stats, Task, TaskId, TaskOutput,
    contain::contain,
    outcome::EndWatch,
    queue::Queue,
    report::Report,
    stats::Counters,
    sync::{AtomicUsize, OnceLock, Ordering},
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
/// when the runtime goes away, tasks end [`Aborted`](crate::TaskEnd::Aborted).
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
#[derive(Clone, Default)]
pub struct Runner {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    runtime: OnceLock<Handle>,
    counters: Counters,
    /// Told whenever a batch ends while someone waits in [`Runner::idle`].
    quiet: Notify,
    /// How many wait for `quiet`, so that without any a batch's end costs one read.
    ///
    /// A waiter registers here before it looks at the counters; a batch's end is counted before it looks here. Both in one
    /// total order: one of the two sees the other.
    waiting_for_quiet: AtomicUsize,
}

impl Runner {
    /// A runner without limits.
    pub fn new() -> Self {
        Self::default()
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
    /// The time the response took counts from this call. The request's method is not known here: an answer to HEAD whose body
    /// says that it has content counts as [`Aborted`](crate::ResponseEnd::Aborted).
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
        let queue = Queue::of_request(self.clone());
        queue.merge(tasks.queue());
        drop(tasks);
        ResponseBody::watched(response, EndWatch::new(queue, &Method::GET))
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
        Queue::of_no_request(self.clone()).add(task, location);
    }

    /// Waits until every task whose response has ended is done: in a test, that everything a request promised has happened.
    ///
    /// Tasks that wait for their response to end do not count. What is added while this waits does: it returns at the first
    /// moment when nothing is on the runner, which under a steady load may never come.
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
        let _waiting = Waiting::new(&self.shared.waiting_for_quiet);
        loop {
            let quiet = self.shared.quiet.notified();
            if self.shared.counters.is_quiet() {
                return;
            }
            quiet.await;
        }
    }

    /// What has become of the tasks so far.
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats()
    }

    pub(crate) fn remember_runtime(&self) {
        if self.shared.runtime.get().is_none() {
            if let Ok(current) = Handle::try_current() {
                let _ = self.shared.runtime.set(current);
            }
        }
    }

    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.remember_runtime();
        self.shared.runtime.get().cloned()
    }

    pub(crate) fn count_added(&self) -> TaskId {
        self.shared.counters.task_added()
    }

    pub(crate) fn task_begun(&self) {
        self.shared.counters.task_begun();
    }

    pub(crate) fn task_ended(&self, report: &Report<'_>) {
        self.shared.counters.task_ended(report.end);
        // A subscriber is code of the user's as well.
        let _ = contain(|| report.log());
    }

    pub(crate) fn batch_begun(&self) {
        self.shared.counters.batch_begun();
    }

    pub(crate) fn batch_ended(&self) {
        let shared = &self.shared;
        shared.counters.batch_ended();
        if shared.waiting_for_quiet.load(Ordering::SeqCst) > 0 && shared.counters.is_quiet() {
            shared.quiet.notify_waiters();
        }
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
