//! [`TaskReport`]: what is told of a task that has ended.

use std::{borrow::Cow, fmt, panic::Location, time::Duration};

use http::Method;
use tokio::time::Instant;

#[cfg(feature = "tracing")]
use crate::task::end::SkipReason;
#[cfg(feature = "tracing")]
use crate::util::contain::contain;
use crate::{
    ResponseOutcome,
    task::{end::TaskEnd, id::TaskId, kind::TaskKind, label::Label, request_line::RequestLine},
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

    /// The task's number within the runner.
    pub fn id(&self) -> TaskId {
        self.report.label.id
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where in the source the task was added.
    pub fn location(&self) -> &'static Location<'static> {
        self.report.label.location
    }

    /// Whether the task was async or blocking.
    pub fn kind(&self) -> TaskKind {
        self.report.label.kind
    }

    /// How it ended.
    pub fn end(&self) -> &TaskEnd {
        self.report.end
    }

    /// From when it was added until it began, or ended without.
    pub fn waited(&self) -> Duration {
        self.report.waited()
    }

    /// From when it began until it ended; zero if it never began.
    pub fn ran(&self) -> Duration {
        self.report.ran()
    }

    /// The method of its request; `None` for a task of no request, and of one that came through
    /// [`Runner::attach`](crate::Runner::attach), which is not told.
    pub fn method(&self) -> Option<&Method> {
        self.report.request.map(|request| &request.method)
    }

    /// The path of its request, without the query; `None` as for [`method`](Self::method).
    pub fn path(&self) -> Option<&str> {
        self.report.request.and_then(RequestLine::path)
    }

    /// How its response ended; `None` for a task of no request, and one that ended before its response.
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

/// Whether the event of this end is worth making: that of a completion, only where a subscriber wants it.
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

/// Everything known of a task at its end.
pub(crate) struct Report<'a> {
    pub(crate) label: &'a Label,
    pub(crate) end: &'a TaskEnd,
    /// `None` where the task never got its turn.
    pub(crate) begun: Option<Instant>,
    pub(crate) ended: Instant,
    pub(crate) response: Option<&'a ResponseOutcome>,
    pub(crate) request: Option<&'a RequestLine>,
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

/// Logs the end, so that a failure is never silent: without any set-up it is in the log under the task's name.
///
/// A failure goes to `tracing` even where there is no subscriber: its feature `log` passes it on to the `log` crate.
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
                        error = self.error().as_deref(), // not made where nobody reads it
                        request.method = request.map(|request| request.method.as_str()),
                        request.path = request.and_then(RequestLine::path),
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
            // Somebody wanted that.
            TaskEnd::Skipped(SkipReason::Condition | SkipReason::EarlierFailure) => log!(debug),
            TaskEnd::Failed(_)
            | TaskEnd::TimedOut
            | TaskEnd::Skipped(SkipReason::NoResponse)
            | TaskEnd::Rejected
            | TaskEnd::Aborted => log!(warn),
            #[cfg(feature = "jobs")]
            TaskEnd::Spilled => log!(info),
        }
    }

    /// The text of what went wrong, which is code of the user's as well.
    fn error(&self) -> Option<String> {
        let error = contain(|| self.end.error());
        error.unwrap_or_else(|_| Some("its error cannot be shown".into()))
    }
}

/// A stand-alone queue was dropped with these tasks in it.
pub(crate) fn never_attached(names: &[Cow<'static, str>]) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_background_tasks",
        tasks = ?names,
        "background tasks dropped: no response took their queue; is `BackgroundTasksLayer` applied?"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = names;
}
