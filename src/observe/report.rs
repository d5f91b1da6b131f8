//! [`TaskReport`]: what an observer is told of a task that has ended.

use std::{borrow::Cow, fmt, panic::Location, time::Duration};

use http::{Extensions, Method};
use tokio::time::Instant;

#[cfg(feature = "tracing")]
use crate::task::end::SkipReason;
#[cfg(feature = "tracing")]
use crate::util::contain::contain;
use crate::{
    ResponseOutcome,
    task::{end::TaskEnd, id::TaskId, kind::TaskKind, label::Label, request_info::RequestInfo},
};

/// A task that has ended, for [`RunnerBuilder::on_task_end`](crate::RunnerBuilder::on_task_end).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_background_tasks::{Runner, Task, TaskEnd};
///
/// let runner = Runner::builder()
///     .on_task_end(|report| match report.end() {
///         TaskEnd::Completed => println!("{} took {:?}", report.name(), report.ran()),
///         end => eprintln!("{}, added at {}: {end}", report.name(), report.location()),
///     })
///     .build();
/// runner.add_task(Task::new(async { Err::<(), _>("no mail server") }).named("mail"));
/// runner.idle().await;
/// # }
/// ```
pub struct TaskReport<'a> {
    report: &'a Report<'a>,
    name: Cow<'static, str>,
}

impl<'a> TaskReport<'a> {
    pub(crate) fn new(report: &'a Report<'a>) -> Self {
        let name = report.label.name();
        Self { report, name }
    }

    /// Returns the task's number within the runner.
    pub fn id(&self) -> TaskId {
        self.report.label.id
    }

    /// Returns the task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where in the source the task was added.
    pub fn location(&self) -> &'static Location<'static> {
        self.report.label.location
    }

    /// Returns whether the task was async or blocking.
    pub fn kind(&self) -> TaskKind {
        self.report.label.kind
    }

    /// Returns how the task ended.
    pub fn end(&self) -> &TaskEnd {
        self.report.end
    }

    /// Returns the time from when the task was added until it began, or ended without.
    pub fn waited(&self) -> Duration {
        self.report.waited()
    }

    /// Returns the time from when the task began until it ended; zero if it never began.
    pub fn ran(&self) -> Duration {
        self.report.ran()
    }

    /// Returns the method of the task's request, or `None` for a task of no request. A task that
    /// came through [`Runner::attach`](crate::Runner::attach) has `None` too, as its request is
    /// unknown.
    pub fn method(&self) -> Option<&Method> {
        self.report.request.map(|request| &request.method)
    }

    /// Returns the path of the task's request, without the query, or `None` as for
    /// [`method`](Self::method).
    pub fn path(&self) -> Option<&str> {
        self.report.request.and_then(RequestInfo::path)
    }

    /// Returns the task's request, or `None` as for [`method`](Self::method).
    pub fn request(&self) -> Option<&RequestInfo> {
        self.report.request
    }

    /// Returns what [`RunnerBuilder::capture`](crate::RunnerBuilder::capture) took from the task's
    /// request, so that a failure can be reported for its tenant, or to its error tracker's hub.
    ///
    /// ```
    /// use tower_background_tasks::{Runner, TaskEnd};
    ///
    /// #[derive(Clone)]
    /// struct Tenant(String);
    ///
    /// let runner = Runner::builder()
    ///     .capture(|request| request.uri.host().map(|host| Tenant(host.to_owned())))
    ///     .on_task_end(|report| {
    ///         if let (TaskEnd::Failed(error), Some(Tenant(name))) = (report.end(), report.get()) {
    ///             eprintln!("{name}: {}: {error}", report.name());
    ///         }
    ///     })
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.report.extensions.get()
    }

    /// Returns how the response ended, or `None` for a task of no request, and for one that ended
    /// before its response.
    pub fn response(&self) -> Option<&ResponseOutcome> {
        self.report.response
    }
}

impl fmt::Debug for TaskReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskReport")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("end", &self.end())
            .field("waited", &self.waited())
            .field("ran", &self.ran())
            .finish_non_exhaustive()
    }
}

/// True if the event of this end is worth making. A completion's is, only if a subscriber wants it.
#[inline]
pub(crate) fn is_logged(end: &TaskEnd) -> bool {
    #[cfg(feature = "tracing")]
    {
        !matches!(end, TaskEnd::Completed)
            || tracing::level_filters::LevelFilter::current() >= tracing::Level::DEBUG
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = end;
        false
    }
}

/// All that is known of a task at its end.
pub(crate) struct Report<'a> {
    pub(crate) label: &'a Label,
    pub(crate) end: &'a TaskEnd,
    /// `None` if the task never began.
    pub(crate) begun: Option<Instant>,
    pub(crate) ended: Instant,
    pub(crate) response: Option<&'a ResponseOutcome>,
    pub(crate) request: Option<&'a RequestInfo>,
    /// What was captured of the request.
    pub(crate) extensions: &'a Extensions,
}

impl Report<'_> {
    pub(crate) fn waited(&self) -> Duration {
        let begun = self.begun.unwrap_or(self.ended);
        begun.duration_since(self.label.added)
    }

    pub(crate) fn ran(&self) -> Duration {
        let begun = self.begun.unwrap_or(self.ended);
        self.ended.duration_since(begun)
    }
}

/// Logs the end, so that no failure is silent: without any set-up, it is in the log under the
/// task's name.
///
/// A failure goes to `tracing` even without a subscriber, as its feature `log` passes it on to the
/// `log` crate.
pub(crate) fn log(report: &Report<'_>) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| report.log());
    #[cfg(not(feature = "tracing"))]
    let _ = report;
}

#[cfg(feature = "tracing")]
impl Report<'_> {
    fn log(&self) {
        let response = self.response;
        let request = self.request;
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "tower_background_tasks",
                    {
                        task.id = %self.label.id,
                        task.name = &*self.label.name(), // as a `str`: a subscriber escapes it
                        task.kind = self.label.kind.as_str(),
                        task.location = %self.label.location,
                        task.end = self.end.as_str(),
                        error = self.error().as_deref(), // not made if no subscriber reads it
                        request.method = request.map(|request| request.method.as_str()),
                        request.path = request.and_then(RequestInfo::path),
                        request.id = request.and_then(RequestInfo::id),
                        response.end = response.map(|response| tracing::field::debug(response.end)),
                        response.status = response.and_then(|response| response.status).map(|status| status.as_u16()),
                        waited = ?self.waited(),
                        ran = ?self.ran(),
                    },
                    "background task {}",
                    self.end.as_str(),
                )
            };
        }
        match self.end {
            TaskEnd::Completed => log!(debug),
            TaskEnd::Panicked(_) => log!(error),
            // The user asked for these.
            TaskEnd::Skipped(
                SkipReason::Condition
                | SkipReason::EarlierFailure
                | SkipReason::NotReleased
                | SkipReason::Recorded,
            ) => log!(debug),
            TaskEnd::Failed(_)
            | TaskEnd::TimedOut
            | TaskEnd::Skipped(SkipReason::NoResponse)
            | TaskEnd::Rejected
            | TaskEnd::Aborted => log!(warn),
            #[cfg(feature = "jobs")]
            TaskEnd::Spilled => log!(info),
        }
    }

    /// Returns the text of what went wrong. Making it is user code as well.
    fn error(&self) -> Option<String> {
        let error = contain(|| self.end.error());
        error.unwrap_or_else(|_| Some("its error cannot be shown".into()))
    }
}

/// Warns that a stand-alone queue was dropped with these tasks in it.
pub(crate) fn never_attached(names: &[Cow<'static, str>]) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_background_tasks",
        tasks = ?names,
        "background tasks dropped: no response took their queue, or middleware threw that response \
         away; is `BackgroundTasksLayer` applied, and outside of such middleware?"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = names;
}

/// Warns that a response stays open.
pub(crate) fn slow_response(
    request: Option<&RequestInfo>,
    open_for: Duration,
    names: &[Cow<'static, str>],
) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| {
        tracing::warn!(
            target: "tower_background_tasks",
            {
                http.request.method = request.map(|request| request.method.as_str()),
                url.path = request.and_then(RequestInfo::path),
                request.id = request.and_then(RequestInfo::id),
                response.open_seconds = open_for.as_secs_f64(),
                tasks = ?names,
            },
            "background tasks await the end of a response that stays open"
        );
    });
    #[cfg(not(feature = "tracing"))]
    let _ = (request, open_for, names);
}

/// Warns that tasks still wait for their responses.
pub(crate) fn still_waiting(idle: &impl fmt::Display) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| tracing::warn!(target: "tower_background_tasks", "{idle}"));
    #[cfg(not(feature = "tracing"))]
    let _ = idle;
}

/// Tells the operator how far a shutdown has come.
pub(crate) fn going_down(what: fmt::Arguments<'_>) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| tracing::info!(target: "tower_background_tasks", "shutting down: {what}"));
    #[cfg(not(feature = "tracing"))]
    let _ = what;
}

/// Tells what was left by a server that failed, as its caller gets the error and not the report.
pub(crate) fn server_failed(report: &impl fmt::Display) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| {
        tracing::error!(target: "tower_background_tasks", "the server has failed: {report}");
    });
    #[cfg(not(feature = "tracing"))]
    let _ = report;
}

/// Warns that no signal can be heard.
#[cfg(feature = "signal")]
pub(crate) fn no_signals(why: &dyn fmt::Display) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| {
        tracing::error!(
            target: "tower_background_tasks",
            "no signal is heard, and the server runs until it is killed: call `enable_io` on the \
             runtime's builder, or use `serve_until` ({why})"
        );
    });
    #[cfg(not(feature = "tracing"))]
    let _ = why;
}
