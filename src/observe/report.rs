//! [`TaskReport`]: what an observer learns of a task that has ended. Also the crate's log events.

#[cfg(feature = "tracing")]
use std::sync::Arc;
use std::{borrow::Cow, fmt, panic::Location, time::Duration};

use http::{Extensions, Method};
use tokio::time::Instant;
#[cfg(feature = "tracing")]
use tracing::{Level, field, level_filters::LevelFilter};

#[cfg(feature = "tracing")]
use super::repeats::{Kind, Repeats};
#[cfg(feature = "tracing")]
use crate::util::contain::contain;
use crate::{
    ResponseOutcome,
    task::{end::TaskEnd, id::TaskId, kind::TaskKind, label::Label, request_info::RequestInfo},
};
#[cfg(feature = "tracing")]
use crate::{task::end::SkipReason, util::panic::TaskPanic};

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

    /// Returns the time from when the task was added until it began, or until it ended if it never
    /// began.
    pub fn waited(&self) -> Duration {
        self.report.waited()
    }

    /// Returns the time from when the task began until it ended, or zero if it never began.
    pub fn ran(&self) -> Duration {
        self.report.ran()
    }

    /// Returns the method of the task's request. Returns `None` if the task belongs to no request.
    /// Also returns `None` after [`Runner::attach`](crate::Runner::attach), where the request is
    /// unknown.
    pub fn method(&self) -> Option<&Method> {
        self.report.request.map(|request| &request.method)
    }

    /// Returns the path of the task's request, without the query. Returns `None` as
    /// [`method`](Self::method) does, and for a request without a path (CONNECT).
    pub fn path(&self) -> Option<&str> {
        self.report.request.and_then(RequestInfo::path)
    }

    /// Returns the task's request, or `None` as [`method`](Self::method) does.
    pub fn request(&self) -> Option<&RequestInfo> {
        self.report.request
    }

    /// Returns the value that [`RunnerBuilder::capture`](crate::RunnerBuilder::capture) took from
    /// the task's request, or `None` if it took none of this type. For example, an observer can
    /// report a failure together with the tenant.
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
    ///         let tenant = report.get::<Tenant>();
    ///         if let (TaskEnd::Failed(error), Some(Tenant(name))) = (report.end(), tenant) {
    ///             eprintln!("{name}: {}: {error}", report.name());
    ///         }
    ///     })
    ///     .build();
    /// # drop(runner);
    /// ```
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.report.extensions.get()
    }

    /// Returns how the response ended. Returns `None` if the task belongs to no request, or ended
    /// before its response did.
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

/// Returns true if this end is logged. A completion is logged only if a subscriber may read it.
#[inline]
pub(crate) fn is_logged(end: &TaskEnd) -> bool {
    #[cfg(feature = "tracing")]
    {
        !matches!(end, TaskEnd::Completed) || is_read(Level::DEBUG)
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = end;
        false
    }
}

/// What the crate knows about a task at its end.
pub(crate) struct Report<'a> {
    pub(crate) label: &'a Label,
    pub(crate) end: &'a TaskEnd,
    /// `None` if the task never began.
    pub(crate) begun: Option<Instant>,
    pub(crate) ended: Instant,
    pub(crate) response: Option<&'a ResponseOutcome>,
    pub(crate) request: Option<&'a RequestInfo>,
    /// The values captured from the request.
    pub(crate) extensions: &'a Extensions,
    /// True if the task has a span. That span names the task and its request.
    #[cfg(feature = "tracing")]
    pub(crate) has_span: bool,
}

impl Report<'_> {
    pub(crate) fn waited(&self) -> Duration {
        let begun = self.begun.unwrap_or(self.ended);
        begun.duration_since(self.label.added)
    }

    /// `None` if the task did not run. The condition of a skipped task may have taken some time.
    fn ran_from(&self) -> Option<Instant> {
        self.begun
            .filter(|_| !matches!(self.end, TaskEnd::Skipped(_)))
    }

    pub(crate) fn ran(&self) -> Duration {
        let ran_from = self.ran_from().unwrap_or(self.ended);
        self.ended.duration_since(ran_from)
    }
}

/// Logs the end under the task's name, unless `repeats` counts it. So no failure is silent.
///
/// A failure becomes an event even without a subscriber, because `tracing` may pass events on to
/// the `log` crate (its feature `log`).
#[cfg(feature = "tracing")]
pub(crate) fn log(report: &Report<'_>, repeats: &Arc<Repeats>) {
    // A subscriber is user code.
    let _ = contain(|| {
        let kind = report.kind();
        let error = kind.as_ref().and_then(|kind| kind.error.clone());
        if kind.is_none_or(|kind| repeats.is_first(kind)) {
            report.log(error);
        }
    });
}

/// Returns true if a subscriber may read events of this level.
#[cfg(feature = "tracing")]
fn is_read(level: Level) -> bool {
    level <= LevelFilter::current()
}

/// Returns the line as an `i64`, as OpenTelemetry has no unsigned numbers.
#[cfg(feature = "tracing")]
pub(super) fn line_of(location: &Location<'_>) -> i64 {
    location.line().into()
}

/// Returns the level of an end. A skip is at debug level, as it is no fault of the task: for
/// example, a condition did not hold, or the client disconnected before a response.
#[cfg(feature = "tracing")]
fn level_of(end: &TaskEnd) -> Level {
    match end {
        TaskEnd::Completed | TaskEnd::Skipped(_) => Level::DEBUG,
        TaskEnd::Panicked(_) => Level::ERROR,
        TaskEnd::Failed(_) | TaskEnd::TimedOut | TaskEnd::Rejected | TaskEnd::Aborted => {
            Level::WARN
        }
        #[cfg(feature = "jobs")]
        TaskEnd::Spilled => Level::INFO,
    }
}

#[cfg(feature = "tracing")]
impl Report<'_> {
    /// Logs the end. The event has the fields of the task's span only if there is no span. `error`
    /// is the error's text, if the caller has made it.
    fn log(&self, error: Option<String>) {
        let (label, response) = (self.label, self.response);
        let label_of = (!self.has_span).then_some(label);
        let request = self.request.filter(|_| !self.has_span);
        let panic = match self.end {
            TaskEnd::Panicked(panic) => Some(panic),
            _ => None,
        };
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "tower_background_tasks",
                    {
                        task.name = &*label.name(), // as a `str`: a subscriber escapes it
                        task.end = self.end.as_str(),
                        error = error.or_else(|| self.end.error()).as_deref(), // made only if a subscriber reads it
                        panic.location = panic.and_then(TaskPanic::location),
                        panic.backtrace = panic.and_then(TaskPanic::backtrace),
                        task.id = label_of.map(|label| field::display(label.id)),
                        task.kind = label_of.map(|label| label.kind.as_str()),
                        code.file.path = label_of.map(|label| label.location.file()),
                        code.line.number = label_of.map(|label| line_of(label.location)),
                        http.request.method = request.map(|request| request.method.as_str()),
                        url.path = request.and_then(RequestInfo::path),
                        http.route = request.and_then(RequestInfo::route),
                        request.id = request.and_then(RequestInfo::id),
                        response.end = response.map(|response| field::debug(response.end)),
                        http.response.status_code = response.and_then(|response| response.status).map(|status| i64::from(status.as_u16())),
                        task.waiting_seconds = self.waited().as_secs_f64(),
                        task.running_seconds = self.ran_from().map(|_| self.ran().as_secs_f64()),
                    },
                    "background task {}",
                    self.end.in_words(),
                )
            };
        }
        match level_of(self.end) {
            Level::ERROR => log!(error),
            Level::WARN => log!(warn),
            Level::INFO => log!(info),
            _ => log!(debug),
        }
    }

    /// Returns the kind under which this end is summed up. Returns `None` if each such end is
    /// logged by itself.
    fn kind(&self) -> Option<Kind> {
        let level = level_of(self.end);
        let no_response = matches!(self.end, TaskEnd::Skipped(SkipReason::NoResponse));
        (no_response || level <= Level::WARN).then(|| Kind {
            level,
            name: self.label.name.of_the_program(),
            location: self.label.location,
            end: self.end.in_words(),
            error: is_read(level).then(|| self.end.error()).flatten(),
        })
    }
}

/// Logs how many failures of a kind were counted and not logged.
#[cfg(feature = "tracing")]
pub(crate) fn repeated(kind: &Kind, count: u64) {
    if count == 0 {
        return;
    }
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                target: "tower_background_tasks",
                parent: None,
                {
                    task.name = kind.name,
                    code.file.path = kind.location.file(),
                    code.line.number = line_of(kind.location),
                    error = kind.error.as_deref(),
                    repeats = count,
                },
                "background tasks {} again",
                kind.end,
            )
        };
    }
    let _ = contain(|| match kind.level {
        Level::ERROR => log!(error),
        Level::WARN => log!(warn),
        _ => log!(debug),
    });
}

/// Warns that a poll held its worker thread for `held`, usually by blocking code in an async task.
pub(crate) fn slow_poll(label: &Label, held: Duration, has_span: bool) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| {
        let unless_in_span = (!has_span).then_some(label);
        tracing::warn!(
            target: "tower_background_tasks",
            {
                task.name = &*label.name(), // as a `str`: a subscriber escapes it
                task.id = unless_in_span.map(|label| field::display(label.id)),
                code.file.path = unless_in_span.map(|label| label.location.file()),
                code.line.number = unless_in_span.map(|label| line_of(label.location)),
                task.held_seconds = held.as_secs_f64(),
            },
            "background task held its worker: blocking code belongs into `add_blocking_task`"
        );
    });
    #[cfg(not(feature = "tracing"))]
    let _ = (label, held, has_span);
}

/// Warns that a stand-alone queue was dropped with these tasks in it, which then never run.
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
                http.route = request.and_then(RequestInfo::route),
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

/// Warns that tasks still wait for their responses to end, or for a release.
pub(crate) fn still_waiting(idle: &impl fmt::Display) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| tracing::warn!(target: "tower_background_tasks", "{idle}"));
    #[cfg(not(feature = "tracing"))]
    let _ = idle;
}

pub(crate) fn going_down(what: fmt::Arguments<'_>) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| tracing::info!(target: "tower_background_tasks", "shutting down: {what}"));
    #[cfg(not(feature = "tracing"))]
    let _ = what;
}

/// Logs a shutdown's report after the server has failed: the caller gets only the server's error.
pub(crate) fn server_failed(report: &impl fmt::Display) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| {
        tracing::error!(target: "tower_background_tasks", "the server has failed: {report}");
    });
    #[cfg(not(feature = "tracing"))]
    let _ = report;
}

/// Logs an error that the operator must see and the client must not.
#[cfg(all(feature = "axum", feature = "jobs"))]
pub(crate) fn program_at_fault(error: &dyn fmt::Display) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| tracing::error!(target: "tower_background_tasks", "{error}"));
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// Logs an error: the process cannot listen for signals.
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
