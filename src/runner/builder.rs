//! [`RunnerBuilder`].

use std::time::Duration;

use tokio::runtime::Handle;

use super::Runner;
#[cfg(feature = "tracing")]
use crate::observe::span::SpanRelation;
use crate::{
    ResponseOutcome,
    observe::report::TaskReport,
    shared::settings::{OnFailure, Order, Settings},
};

/// Sets up a [`Runner`]. Without any setting it is [`Runner::new`]: no limits.
///
/// ```
/// use std::time::Duration;
/// use tower_background_tasks::{OnFailure, Runner};
///
/// let runner = Runner::builder()
///     .max_running(256)
///     .max_blocking(16)
///     .max_pending(10_000)
///     .task_timeout(Duration::from_secs(60))
///     .on_failure(OnFailure::Continue)
///     .on_task_end(|report| println!("{}: {}", report.name(), report.end()))
///     .build();
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing unless it is built"]
pub struct RunnerBuilder {
    pub(crate) settings: Settings,
}

impl RunnerBuilder {
    /// In which order the tasks of one request run; [`Order::Sequential`] by default. Those of different requests always run
    /// side by side.
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// What becomes of a request's other tasks when one fails; by default they run.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.settings.on_failure = on_failure;
        self
    }

    /// How many tasks run at once, async and blocking, over all requests; no limit by default.
    ///
    /// The rest wait, first come, first served; a waiting task costs its memory, and no thread. A request's tasks take a place
    /// each when their turn comes. A task that waits for another task's work can wait for ever under any limit.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_running(mut self, limit: usize) -> Self {
        self.settings.max_running = Some(positive("max_running", limit));
        self
    }

    /// How many blocking tasks run at once, over all requests; no limit by default but Tokio's pool of 512 threads.
    ///
    /// A limit keeps one endpoint's sync tasks from taking the whole pool, which files, DNS look-ups and others' blocking code
    /// share. A blocking task counts against [`max_running`](Self::max_running) too. One that has timed out cannot be stopped,
    /// and counts until it returns.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_blocking(mut self, limit: usize) -> Self {
        self.settings.max_blocking = Some(positive("max_blocking", limit));
        self
    }

    /// How many tasks may wait (added and not yet begun), over all requests; no limit by default.
    ///
    /// Past it, [`try_add_task`](crate::BackgroundTasks::try_add_task) gives the task back, so that the handler can answer
    /// 503, and [`add_task`](crate::BackgroundTasks::add_task) ends it [`Rejected`](crate::TaskEnd::Rejected).
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_pending(mut self, limit: usize) -> Self {
        self.settings.max_pending = Some(positive("max_pending", limit));
        self
    }

    /// The timeout of each task without one of its own ([`Task::timeout`](crate::Task::timeout)); none by default.
    ///
    /// With it, each blocking task goes to the blocking pool by itself; without, those of one request that follow one another
    /// share a hop.
    ///
    /// # Panics
    ///
    /// If `timeout` is zero.
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        assert!(
            !timeout.is_zero(),
            "`task_timeout` must not be zero: no task could run"
        );
        self.settings.task_timeout = Some(timeout);
        self
    }

    /// Whether a task without a condition of its own ([`Task::run_if`](crate::Task::run_if)) runs; by default it does when
    /// there was a response ([`ResponseOutcome::is_responded`]).
    ///
    /// A panic in it ends the task [`Panicked`](crate::TaskEnd::Panicked).
    ///
    /// ```
    /// use tower_background_tasks::{ResponseOutcome, Runner};
    ///
    /// let runner = Runner::builder().run_if(ResponseOutcome::is_success).build();
    /// ```
    pub fn run_if(
        mut self,
        condition: impl Fn(&ResponseOutcome) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.run_if = Some(Box::new(condition));
        self
    }

    /// The runtime that all tasks run on.
    ///
    /// By default it is the one on which their response ends, or they are added, or else that of their request.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.settings.runtime = Some(runtime);
        self
    }

    /// Called once for each task that ends, however it ends. A panic in it is contained.
    ///
    /// It is called on the thread where the task ended, which goes on when it returns: so it should be quick, and must not
    /// block. For a task that is refused that is the thread that added it; for one that is lost with its runtime, the
    /// thread that dropped it.
    ///
    /// It may add tasks; but one that is refused or aborted at once is reported from within the call that added it. An observer
    /// that tries again must not do so for [`Rejected`](crate::TaskEnd::Rejected) or [`Aborted`](crate::TaskEnd::Aborted).
    ///
    /// One that holds a [`Runner`] of its own keeps that for ever, as the runner keeps its observer: hold a [`Weak`](std::sync::Weak)
    /// of an `Arc<Runner>` instead.
    pub fn on_task_end(
        mut self,
        observer: impl Fn(&TaskReport<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_task_end = Some(Box::new(observer));
        self
    }

    /// How the span `background_task` of each task relates to the span that was current when it was added.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn span_relation(mut self, relation: SpanRelation) -> Self {
        self.settings.span_relation = relation;
        self
    }

    /// Warns, under its name, of an async task whose single poll holds its worker for `threshold` or longer; off by default.
    ///
    /// That is blocking code in an async task: it keeps the worker from everything else it has to do, connections included, and
    /// belongs into [`add_blocking_task`](crate::BackgroundTasks::add_blocking_task). The warning comes when the poll returns;
    /// until then [`Runner::tasks`] shows the task.
    ///
    /// Only polls are timed: not a condition ([`Task::run_if`](crate::Task::run_if)), nor the destructor of a task, though these hold
    /// a worker as well.
    ///
    /// It costs each poll two looks at the clock, the lock of the request's queue, and a copy of what the task is called (an
    /// allocation where the name was made at run time).
    ///
    /// # Panics
    ///
    /// If `threshold` is zero.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn warn_slow_poll(mut self, threshold: Duration) -> Self {
        assert!(
            !threshold.is_zero(),
            "`warn_slow_poll` must not be zero: every poll would be slow"
        );
        self.settings.slow_poll = Some(threshold);
        self
    }

    /// Makes the runner.
    pub fn build(self) -> Runner {
        Runner::with_settings(self.settings)
    }
}

#[track_caller]
fn positive(setting: &str, limit: usize) -> usize {
    assert!(
        limit > 0,
        "`{setting}` must not be zero: no task could run; leave it out for no limit"
    );
    limit
}
