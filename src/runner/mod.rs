//! [`Runner`]: where tasks run, as its users see it; its builder, and its shutdown. It uses `executor`, `queue` and below.

pub(crate) mod builder;
pub(crate) mod shutdown;

use std::{fmt, panic::Location, sync::Arc};

use self::builder::RunnerBuilder;
use crate::{
    executor::Executor,
    observe::info::TaskInfo,
    queue::{Queue, owner::Owner},
    shared::{Shared, settings::Settings, stats::Stats},
    task::{Task, add_error::AddTaskError, id::TaskId, into_task::IntoTask, output::TaskOutput},
};

/// Runs tasks off the connections, and counts what becomes of each. Clones are the same runner.
///
/// A server has one, made beside its router, and asks it at the end what became of everything. Tasks outlive the `Runner`
/// handles: dropping them all stops nothing.
///
/// # Runtime
///
/// Tasks run on the runtime on which their response ends, or they are added; where there is none (a body is dropped on a foreign
/// thread) on that of their request, or else on the first that the runner has seen. So one runner serves any number of runtimes, one
/// after another and side by side; [`RunnerBuilder::runtime`] sets one for all. Without any runtime, and when the runtime goes away,
/// tasks end [`Aborted`](crate::TaskEnd::Aborted).
///
/// The async tasks of a request are one task of the runtime, and blocking tasks that follow one another share a closure on the
/// blocking pool. So [`tokio::task::id`] does not tell them apart; [`TaskId`](crate::TaskId) does.
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
    /// A runner without limits.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A runner with limits, timeouts, an observer: see [`RunnerBuilder`].
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder::default()
    }

    fn with_settings(settings: Settings) -> Self {
        let executor = Executor::new(&settings);
        let owner = Owner::new(settings, Box::new(executor));
        Self::from(Arc::new(owner))
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
        Queue::of_no_request(Arc::clone(&self.owner)).add_or_reject(task, location);
    }

    /// Adds a task of no request, or gives it back where the runner does not take it.
    ///
    /// # Errors
    ///
    /// This returns an error when too many tasks wait ([`RunnerBuilder::max_pending`]), and when the runner has shut down.
    #[track_caller]
    pub fn try_add_task(&self, task: impl IntoTask) -> Result<TaskId, AddTaskError> {
        Queue::of_no_request(Arc::clone(&self.owner)).add(task.into_task(), Location::caller())
    }

    /// What runs and what waits now, those added first in front: what a shutdown would wait for. And the blocking tasks that have
    /// timed out and whose threads go on ([`TaskState::Overdue`](crate::TaskState::Overdue)).
    ///
    /// This looks at each queue for a moment, one after the other: a call costs time and memory for each task there is. To keep track
    /// of them costs each request with tasks two short locks more, whether this is called or not.
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.owner.infos()
    }

    /// Waits until every task whose response has ended is done: in a test, that everything a request promised has happened.
    ///
    /// Tasks that wait for their response to end do not count, nor do those that are [run by hand](crate::BackgroundTasks::run). What is added
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
        self.shared().idle().await;
    }

    /// What has become of the tasks so far.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Ends a task [`Aborted`](crate::TaskEnd::Aborted), whether it waits or runs; its siblings go on. An async task that runs is dropped
    /// at its next await point.
    ///
    /// False when no such task is left, or it is a blocking one that runs, which cannot be stopped. A task that waits is dropped
    /// before this returns.
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

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }
}

impl From<Arc<Owner>> for Runner {
    fn from(owner: Arc<Owner>) -> Self {
        Self { owner }
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
