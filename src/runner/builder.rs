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

/// Sets up a [`Runner`]. Without any setting, this makes the same runner as [`Runner::new`], which
/// has no limits.
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
    /// Sets the order in which the tasks of one request run. The default is [`Order::Sequential`].
    /// Tasks of different requests always run side by side.
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// Sets what happens to a request's other tasks when one fails. By default they still run.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.settings.on_failure = on_failure;
        self
    }

    /// Limits how many tasks run at once, async and blocking, over all requests. There is no limit
    /// by default.
    ///
    /// The other tasks wait, first come, first served. A waiting task costs memory but no thread.
    /// A task joins the wait when it is dequeued, behind the earlier tasks of its request. Under
    /// any limit, a task that waits for the work of another task may wait forever.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_running(mut self, limit: usize) -> Self {
        self.settings.max_running = Some(positive("max_running", limit));
        self
    }

    /// Limits how many blocking tasks run at once, over all requests. By default only the size of
    /// Tokio's blocking pool limits them: 512 threads unless configured.
    ///
    /// A limit keeps one endpoint's sync tasks from taking the whole pool, which also serves
    /// files, DNS lookups and other blocking code. Blocking tasks count against
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

    /// Limits how many tasks may wait for the runner, over all requests. These are tasks whose
    /// response has ended and which have not begun. There is no limit by default.
    ///
    /// While the limit is reached, the runner refuses tasks.
    /// [`try_add_task`](crate::BackgroundTasks::try_add_task) returns the task in its error, so
    /// that the handler can answer 503. [`add_task`](crate::BackgroundTasks::add_task) ends the
    /// task [`Rejected`](crate::TaskEnd::Rejected).
    ///
    /// Tasks whose response has not ended do not count. So clients that do not read their
    /// responses cannot keep other requests' tasks out. When their responses end, these tasks run
    /// even if the limit is exceeded, as they were already accepted.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_pending(mut self, limit: usize) -> Self {
        self.settings.max_pending = Some(positive("max_pending", limit));
        self
    }

    /// Limits how many tasks may await the end of their responses, or a release
    /// ([`hold`](crate::BackgroundTasks::hold)), over all requests. There is no limit by default.
    ///
    /// Beyond the limit, the runner refuses tasks as for [`max_pending`](Self::max_pending).
    /// `warn_slow_response` reports the responses that stay open.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn max_awaiting_response(mut self, limit: usize) -> Self {
        self.settings.max_awaiting_response = Some(positive("max_awaiting_response", limit));
        self
    }

    /// Sets the timeout of each task that has none of its own
    /// ([`Task::timeout`](crate::Task::timeout)). There is none by default.
    ///
    /// With a timeout, each blocking task goes to the blocking pool on its own. Without one,
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

    /// Sets the condition for each task that has none of its own
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
    /// [`TaskContext::get`](crate::TaskContext::get), [`TaskReport::get`](crate::TaskReport::get)
    /// and [`around`](Self::around). If `capture` returns `None`, nothing is stored.
    ///
    /// The value is looked up by its type, as in [`http::Extensions`]. Call this again for values
    /// of other types. `capture` runs on the connection's task, so it should be quick. A panic in
    /// it is a panic of the service.
    ///
    /// A closure that holds a handle of its own runner keeps that runner alive forever. The same
    /// applies to `around` and `run_if`.
    ///
    /// Middleware inside the layer runs later, so its additions to the request are not visible
    /// here. Move values that only the handler knows into the task's closure.
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

    /// Surrounds each task while it runs: with a task-local, a tracer's context, an error
    /// tracker's hub, or whatever else code inside the task expects on its thread.
    ///
    /// The runner calls `around` for each poll of an async task and for the one call of a blocking
    /// task. It also calls it to drop a task before its end. `around` prepares the thread, calls
    /// [`Next::run`], undoes the preparation, and returns the [`Ran`]. It runs as often as a
    /// [`Future`] wrapper's `poll`, and must be as quick. It is not called for conditions
    /// ([`run_if`](Self::run_if)), for observers, or for a task that ends before it begins.
    ///
    /// If this is called twice, the first closure surrounds the second. A panic in `around` ends
    /// the task [`Panicked`](crate::TaskEnd::Panicked).
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

    /// Reads each request's id from this header when the request arrives at the layer: for example
    /// `x-request-id`, behind tower-http's `SetRequestIdLayer`.
    ///
    /// [`TaskContext::request`](crate::TaskContext::request) and the span of each task have the
    /// id, so every line that a task logs shows it. An id that is longer than 128 bytes, or is not
    /// visible ASCII, is ignored.
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
    /// Each task's span has the route as `http.route`, and the metrics have it as the label
    /// `route`. Unlike paths, routes are few: one for each route of the program. If `route` builds
    /// its result from what a client sends, each result makes a time series.
    ///
    /// axum knows a request's route only if the layer is added by `Router::layer` or
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
    /// `route` runs on the connection's task, so it should be quick. A panic in it is a panic of
    /// the service.
    pub fn route(mut self, route: impl Fn(&Parts) -> Option<&str> + Send + Sync + 'static) -> Self {
        let on_request = &mut self.settings.on_request;
        on_request.push(Box::new(move |request, noted| {
            if let Some(route) = route(request) {
                noted.insert(Route(route.into()));
            }
        }));
        self
    }

    /// Sets the runtime on which all tasks run.
    ///
    /// By default a task runs on its request's runtime: see [`Runner`].
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.settings.runtime = Some(runtime);
        self
    }

    /// Sets an observer, which the runner calls once for each task that ends, however it ends. A
    /// panic in the observer is contained. A second call replaces the first observer.
    ///
    /// The observer runs on the thread where the task ended, and that thread waits for it. It
    /// should be quick and must not block. A refused task ends on the thread that added it. A task
    /// that is lost with its runtime ends on the thread that dropped it.
    ///
    /// The observer may add tasks. A task that is refused or aborted at once is reported within
    /// the call that added it. So an observer that re-adds tasks must not do so for
    /// [`Rejected`](crate::TaskEnd::Rejected) or [`Aborted`](crate::TaskEnd::Aborted).
    ///
    /// An observer that holds its own [`Runner`] keeps it alive forever, as the runner keeps its
    /// observer. Hold a [`Weak`](std::sync::Weak) of an `Arc<Runner>` instead.
    pub fn on_task_end(
        mut self,
        observer: impl Fn(&TaskReport<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_task_end = Some(Box::new(observer));
        self
    }

    /// Sets how each task's span, `background_task`, relates to the span that was current when the
    /// task was added.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn span_relation(mut self, relation: SpanRelation) -> Self {
        self.settings.span_relation = relation;
        self
    }

    /// Logs a warning that names an async task, if one poll holds its worker for `threshold` or
    /// longer. Off by default.
    ///
    /// Such a task runs blocking code, which belongs in
    /// [`add_blocking_task`](crate::BackgroundTasks::add_blocking_task). It keeps the worker from
    /// all other work, including connections. The warning comes when the poll returns. Until then,
    /// [`Runner::tasks`] shows the task.
    ///
    /// Only polls are timed. A condition ([`Task::run_if`](crate::Task::run_if)) or a task's
    /// destructor can also hold a worker, but is not timed.
    ///
    /// This setting adds to each poll two clock reads, a lock of the request's queue and a copy of
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

    /// Logs one warning for a response that is still open after `age` while tasks await its end.
    /// Its client reads slowly or not at all, or it is an event stream. Off by default.
    ///
    /// The warning names the request and the tasks. It may come late, by up to a quarter of `age`.
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

    /// Sets how often repeated failures are logged. The default is every 10 seconds.
    ///
    /// The first failure of a task is logged at once, with its error and its request. A failure
    /// repeats it if it has the same error, and its task has the same name and was added in the
    /// same place. Repeats are counted, and their number is logged at this interval and at a
    /// shutdown. `Duration::ZERO` logs each failure individually.
    /// [`on_task_end`](Self::on_task_end) and the metrics always receive each failure.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn log_repeats_every(mut self, time: Duration) -> Self {
        self.settings.log_repeats_every = Some(time);
        self
    }

    /// Makes the runner record tasks and run nothing: see [`Runner::recording`]. Use this to
    /// combine recording with other settings, such as jobs or an observer.
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
