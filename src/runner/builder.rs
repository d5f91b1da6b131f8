//! [`RunnerBuilder`]: the settings of a runner.

use std::time::Duration;

use http::{HeaderName, request::Parts};
use tokio::runtime::Handle;

use super::Runner;
#[cfg(feature = "tracing")]
use crate::observe::span::SpanRelation;
use crate::{
    ResponseOutcome, TaskContext,
    observe::report::TaskReport,
    shared::settings::{OnFailure, Order, Settings},
    task::{
        around::{Around, Next, Ran, nested},
        request_info::Route,
    },
};

/// Sets up a [`Runner`]. Without any setting it makes the runner of [`Runner::new`], which has no
/// limits.
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
    /// Sets the order in which the tasks of one request run; [`Order::Sequential`] by default.
    /// Tasks of different requests always run side by side.
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// Sets what happens to a request's other tasks when one fails. By default they run.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.settings.on_failure = on_failure;
        self
    }

    /// Limits how many tasks run at once, async and blocking, over all requests. There is no limit
    /// by default.
    ///
    /// The other tasks wait, first come, first served. A waiting task costs its memory, and no
    /// thread. Each of a request's tasks takes its place when it is dequeued. Under any limit, a
    /// task that waits for another task's work may wait for ever.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_running(mut self, limit: usize) -> Self {
        self.settings.max_running = Some(positive("max_running", limit));
        self
    }

    /// Limits how many blocking tasks run at once, over all requests. By default only Tokio's pool
    /// of 512 threads limits them.
    ///
    /// A limit keeps one endpoint's sync tasks from taking the whole pool, which also serves files,
    /// DNS look-ups and other blocking code. A blocking task counts against
    /// [`max_running`](Self::max_running) too. A blocking task that has timed out cannot be
    /// stopped, and counts until it returns.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_blocking(mut self, limit: usize) -> Self {
        self.settings.max_blocking = Some(positive("max_blocking", limit));
        self
    }

    /// Limits how many tasks may wait for the runner, over all requests: their response has ended,
    /// and they have not begun. There is no limit by default.
    ///
    /// While so many wait, no task is taken:
    /// [`try_add_task`](crate::BackgroundTasks::try_add_task) gives the task back, so that the
    /// handler can answer 503; [`add_task`](crate::BackgroundTasks::add_task) ends the task
    /// [`Rejected`](crate::TaskEnd::Rejected).
    ///
    /// Tasks whose response has not ended are not among them, so that clients that do not read their
    /// responses keep nobody else's tasks out. When their responses end, they are run even if more
    /// tasks wait than this: they were taken.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_pending(mut self, limit: usize) -> Self {
        self.settings.max_pending = Some(positive("max_pending", limit));
        self
    }

    /// Limits how many tasks may await the end of their responses, or a release
    /// ([`hold`](crate::BackgroundTasks::hold)), over all requests. There is no limit by default:
    /// they are as many as open requests add.
    ///
    /// Past the limit, tasks are refused as for [`max_pending`](Self::max_pending).
    /// `warn_slow_response` tells which responses stay open.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_awaiting_response(mut self, limit: usize) -> Self {
        self.settings.max_awaiting_response = Some(positive("max_awaiting_response", limit));
        self
    }

    /// Sets the timeout of each task without one of its own
    /// ([`Task::timeout`](crate::Task::timeout)). There is none by default.
    ///
    /// With a timeout, each blocking task goes to the blocking pool by itself. Without one,
    /// consecutive blocking tasks of a request share a thread.
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

    /// Sets the condition for each task without one of its own
    /// ([`Task::run_if`](crate::Task::run_if)). By default a task runs if there was a response
    /// ([`ResponseOutcome::is_responded`]).
    ///
    /// A panic in the condition ends the task [`Panicked`](crate::TaskEnd::Panicked).
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

    /// Takes a value from each request as it arrives at the layer, for
    /// [`TaskContext::get`](crate::TaskContext::get), [`TaskReport::get`](crate::TaskReport::get) and
    /// [`around`](Self::around). `None` takes nothing.
    ///
    /// The value is found by its type, as in [`http::Extensions`]. This may be called again for
    /// values of other types. `capture` runs on the connection's task, so it should be quick. If
    /// it panics, the service of the request panics.
    ///
    /// A closure that holds a handle of its own runner keeps that runner alive for ever. The same is
    /// so for `around` and `run_if`.
    ///
    /// Middleware inside of the layer runs later: what it finds out is not in the request yet. Values
    /// that only the handler knows belong in its closures.
    ///
    /// ```
    /// use tower_background_tasks::{Runner, Task};
    ///
    /// #[derive(Clone)]
    /// struct Tenant(String);
    ///
    /// let runner = Runner::builder()
    ///     .capture(|request| {
    ///         let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
    ///         Some(Tenant(tenant.to_owned()))
    ///     })
    ///     .build();
    /// let mail = Task::with_context(|cx| async move {
    ///     println!("mail of {:?}", cx.get().map(|Tenant(name)| name));
    /// });
    /// # drop((runner, mail));
    /// ```
    pub fn capture<T: Clone + Send + Sync + 'static>(
        mut self,
        capture: impl Fn(&Parts) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.settings
            .on_request
            .push(Box::new(move |request, extensions| {
                if let Some(value) = capture(request) {
                    extensions.insert(value);
                }
            }));
        self
    }

    /// Surrounds each task while it runs: with a task-local, the context of a tracer, the hub of an
    /// error tracker, whatever code deep inside of a task expects to find on its thread.
    ///
    /// `around` is called for each poll of an async task, for the one call of a blocking task, and
    /// when either is dropped before its end. It sets up what it gives the task, calls
    /// [`Next::run`], takes it down again, and returns what that returned. So it sees each step of a
    /// task, as a [`Future`] that wraps another does, and must be as quick. It is not called for
    /// conditions ([`run_if`](Self::run_if)), for observers, or for a task that ends before it
    /// begins.
    ///
    /// Of two calls to this, the first is the outer one. A panic in `around` ends the task
    /// [`Panicked`](crate::TaskEnd::Panicked).
    ///
    /// ```
    /// use tower_background_tasks::Runner;
    ///
    /// tokio::task_local! {
    ///     static TENANT: String;
    /// }
    ///
    /// let runner = Runner::builder()
    ///     .capture(|request| request.uri.host().map(str::to_owned))
    ///     .around(|cx, next| match cx.get::<String>() {
    ///         Some(tenant) => TENANT.sync_scope(tenant.clone(), || next.run()),
    ///         None => next.run(), // a task of no request
    ///     })
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn around(
        mut self,
        around: impl Fn(&TaskContext, Next<'_>) -> Ran + Send + Sync + 'static,
    ) -> Self {
        let around: Around = Box::new(around);
        self.settings.around = Some(match self.settings.around.take() {
            None => around,
            Some(outer) => nested(outer, around),
        });
        self
    }

    /// Reads each request's id from this header, as it is when the request arrives at the layer, such
    /// as `x-request-id` behind tower-http's `SetRequestIdLayer`.
    ///
    /// [`TaskContext::request`](crate::TaskContext::request) has it, and the span of each task, so
    /// that every line a task logs shows it. An id of more than 128 bytes, or that is not visible
    /// ASCII, is left out.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_background_tasks::Runner;
    ///
    /// let runner = Runner::builder()
    ///     .request_id_header(HeaderName::from_static("x-request-id"))
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn request_id_header(mut self, name: HeaderName) -> Self {
        self.settings.request_id_header = Some(name);
        self
    }

    /// Takes the route of each request as it arrives at the layer, such as `/orders/{id}`.
    ///
    /// The span of each task has it as `http.route`, and so have the metrics as `route`:
    /// a label of which there are only as many as the program has routes, unlike paths. A `route`
    /// that makes them up from what a client sends makes a time series of each.
    ///
    /// axum knows the route of a request where the layer is added by `Router::layer` or
    /// `Router::route_layer`, after the routes:
    ///
    /// ```
    /// use axum::{Router, extract::MatchedPath, routing::post};
    /// use tower_background_tasks::{BackgroundTasks, Runner};
    ///
    /// let runner = Runner::builder()
    ///     .route(|request| Some(request.extensions.get::<MatchedPath>()?.as_str()))
    ///     .build();
    /// let app: Router = Router::new()
    ///     .route("/orders/{id}", post(async |tasks: BackgroundTasks| drop(tasks)))
    ///     .layer(runner.layer());
    /// # drop(app);
    /// ```
    ///
    /// It runs on the connection's task, so it should be quick. If it panics, the service of the
    /// request panics.
    pub fn route(mut self, route: impl Fn(&Parts) -> Option<&str> + Send + Sync + 'static) -> Self {
        let on_request = &mut self.settings.on_request;
        on_request.push(Box::new(move |request, noted| {
            if let Some(route) = route(request) {
                noted.insert(Route(route.into()));
            }
        }));
        self
    }

    /// Sets the runtime that all tasks run on.
    ///
    /// By default a task runs on the runtime of its request: see [`Runner`].
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.settings.runtime = Some(runtime);
        self
    }

    /// Sets an observer, which is called once for each task that ends, however it ends. A panic in
    /// it is contained.
    ///
    /// The observer runs on the thread where the task ended, and that thread waits for it. It
    /// should be quick, and must not block. A refused task ends on the thread that added it. A task
    /// that is lost with its runtime ends on the thread that dropped it.
    ///
    /// The observer may add tasks. A task that is refused or aborted at once is reported within the
    /// call that added it. So an observer that adds tasks again must not do so for
    /// [`Rejected`](crate::TaskEnd::Rejected) or [`Aborted`](crate::TaskEnd::Aborted).
    ///
    /// An observer that holds its own [`Runner`] keeps it alive for ever, as the runner keeps its
    /// observer. Hold a [`Weak`](std::sync::Weak) of an `Arc<Runner>` instead.
    pub fn on_task_end(
        mut self,
        observer: impl Fn(&TaskReport<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_task_end = Some(Box::new(observer));
        self
    }

    /// Sets how the span `background_task` of each task relates to the span that was current when
    /// the task was added.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn span_relation(mut self, relation: SpanRelation) -> Self {
        self.settings.span_relation = relation;
        self
    }

    /// Warns of an async task, by name, if one poll holds its worker for `threshold` or longer. Off
    /// by default.
    ///
    /// Such a task runs blocking code, which belongs in
    /// [`add_blocking_task`](crate::BackgroundTasks::add_blocking_task). It keeps the worker from
    /// all its other work, connections included. The warning comes when the poll returns. Until
    /// then [`Runner::tasks`] shows the task.
    ///
    /// Only polls are timed. A condition ([`Task::run_if`](crate::Task::run_if)) or a task's
    /// destructor also holds a worker, and is not timed.
    ///
    /// The setting costs each poll two clock reads, the lock of the request's queue and a copy of
    /// the task's name. The copy allocates if the name was made at run time.
    ///
    /// # Panics
    ///
    /// If `threshold` is zero.
    pub fn warn_slow_poll(mut self, threshold: Duration) -> Self {
        assert!(
            !threshold.is_zero(),
            "`warn_slow_poll` must not be zero: every poll would be slow"
        );
        self.settings.slow_poll = Some(threshold);
        self
    }

    /// Warns of a response, once, if it is still open after `age` and tasks await its end: its client
    /// reads slowly or not at all, or it is an event stream. Off by default.
    ///
    /// The warning names the request and the tasks. It comes up to a quarter of `age` later.
    ///
    /// # Panics
    ///
    /// If `age` is zero.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn warn_slow_response(mut self, age: Duration) -> Self {
        assert!(
            !age.is_zero(),
            "`warn_slow_response` must not be zero: every response would be slow"
        );
        self.settings.slow_response = Some(age);
        self
    }

    /// Sets how often failures that repeat are logged; every 10 seconds by default.
    ///
    /// The first failure of a task is logged at once, with its error and its request. Others with the
    /// same error, of tasks with the same name that were added in the same place, are counted, and
    /// their number is logged so often, and at a shutdown. `Duration::ZERO` logs each failure by
    /// itself. [`on_task_end`](Self::on_task_end) and the metrics are told of each in any case.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn log_repeats_every(mut self, time: Duration) -> Self {
        self.settings.log_repeats_every = Some(time);
        self
    }

    /// Makes a runner that runs nothing: see [`Runner::recording`]. This is for one that has other
    /// settings too, such as jobs or an observer.
    ///
    /// A recording runner never refuses a task. With a `job_store`, jobs go to that store and are
    /// not recorded.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use tower_background_tasks::Runner;
    ///
    /// let runner = Runner::builder()
    ///     .on_task_end(|report| println!("{}: {}", report.name(), report.end()))
    ///     .recording()
    ///     .build();
    /// runner.add_task(async { unreachable!("it does not run") });
    /// assert_eq!(runner.recorded().len(), 1);
    /// # }
    /// ```
    pub fn recording(mut self) -> Self {
        self.settings.recording = true;
        self
    }

    /// Builds the runner.
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
