//! [`RunJob`]: one attempt of a stored job on a worker.

use std::{
    error::Error,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{
    job_report::{JobEnd, JobReport},
    registered::{Registry, Running},
    span,
};
use crate::{
    BoxError, JobContext, RunJobError, StoredJob, TaskResult,
    observe::span::TaskSpan,
    util::contain::{contain, contain_drop},
    util::panic::TaskPanic,
};

/// Runs a stored job. [`Jobs::run`](crate::Jobs::run) returns this future.
///
/// It does nothing until it is polled. If the job panics, the panic is contained, and this future
/// returns it as an error.
#[must_use = "futures do nothing unless polled"]
pub struct RunJob {
    stage: Stage,
}

enum Stage {
    Waiting(Box<Waiting>),
    Running(Box<RunningJob>),
    Done,
}

struct Waiting {
    registry: Arc<Registry>,
    stored: StoredJob,
    attempt: Attempt,
}

/// The number of this attempt since the job was stored.
pub(crate) enum Attempt {
    Given(u32),
    /// apalis' counter. apalis increments it at the first poll of its future, after this is made.
    #[cfg(feature = "apalis")]
    Counted(apalis_core::task::attempt::Attempt),
}

impl Attempt {
    fn number(&self) -> u32 {
        match self {
            Self::Given(number) => *number,
            #[cfg(feature = "apalis")]
            Self::Counted(attempt) => attempt.current().try_into().unwrap_or(u32::MAX),
        }
    }
}

impl RunJob {
    pub(crate) fn new(registry: Arc<Registry>, stored: StoredJob, attempt: Attempt) -> Self {
        let waiting = Waiting {
            registry,
            stored,
            attempt,
        };
        Self {
            stage: Stage::Waiting(Box::new(waiting)),
        }
    }
}

/// An attempt that has begun. Its end is reported once.
struct RunningJob {
    registry: Arc<Registry>,
    stored: StoredJob,
    attempt: u32,
    begun: Instant,
    span: TaskSpan,
    /// `None` before the job has started and after it has been dropped.
    job: Option<Running>,
    is_told: bool,
}

impl Waiting {
    fn start(self) -> Result<Box<RunningJob>, BoxError> {
        let attempt = self.stored.attempts().saturating_add(self.attempt.number());
        let mut running = Box::new(RunningJob {
            span: span::open(&self.registry, &self.stored, attempt),
            registry: self.registry,
            stored: self.stored,
            attempt,
            begun: Instant::now(),
            job: None,
            is_told: false,
        });
        match running.start() {
            Ok(job) => running.job = Some(job),
            Err(error) => {
                running.tell(JobEnd::of(&error), Some(&error));
                return Err(error.into());
            }
        }
        Ok(running)
    }
}

impl RunningJob {
    fn start(&self) -> Result<Running, RunJobError> {
        if !self.stored.is_readable() {
            return Err(RunJobError::Unreadable);
        }
        let Some(entry) = self.registry.entry(self.stored.name()) else {
            let name = self.stored.name().to_owned();
            return Err(RunJobError::NotRegistered { name });
        };
        let (name, id) = (entry.name(), self.stored.id());
        let cx = JobContext::on_worker(id, name, self.attempt, self.stored.request().cloned());
        let start = || entry.start(self.stored.payload(), cx);
        contain(|| self.span.in_scope(start)).map_err(|panic| self.panicked(&panic))?
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TaskResult> {
        let Some(job) = &mut self.job else {
            return Poll::Pending;
        };
        let polled = contain(|| self.span.in_scope(|| job.as_mut().poll(cx)));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => Ok(result),
            Err(panic) => Err(panic),
        };
        // The job is dropped within its span, before its end is told.
        let dropped = self.drop_job();
        Poll::Ready(match dropped {
            Ok(()) => self.ended(result),
            Err(panic) => {
                let _ = contain_drop(result);
                self.ended(Err(panic))
            }
        })
    }

    fn drop_job(&mut self) -> Result<(), TaskPanic> {
        let (job, span) = (&mut self.job, &self.span);
        contain(|| span.in_scope(|| *job = None))
    }

    fn panicked(&self, panic: &TaskPanic) -> RunJobError {
        RunJobError::Panicked {
            name: self.stored.name().to_owned(),
            message: panic.to_string(),
        }
    }

    /// Tells the end and returns the result.
    fn ended(&mut self, result: Result<TaskResult, TaskPanic>) -> TaskResult {
        let (end, result) = match result {
            Ok(Ok(())) => (JobEnd::Completed, Ok(())),
            Ok(Err(error)) => (JobEnd::Failed, Err(error)),
            Err(panic) => (JobEnd::Panicked, Err(self.panicked(&panic).into())),
        };
        self.tell(end, result.as_ref().err().map(|error| &**error));
        result
    }

    fn tell(&mut self, end: JobEnd, error: Option<&(dyn Error + Send + Sync + 'static)>) {
        self.is_told = true;
        let entry = self.registry.entry(self.stored.name());
        let report = JobReport {
            id: self.stored.id(),
            name: self.stored.name(),
            registered: entry.map(|entry| entry.name()),
            attempt: self.attempt,
            request: self.stored.request(),
            end,
            error,
            ran: self.begun.elapsed(),
        };
        if end != JobEnd::Completed {
            self.span.record_error(end.as_str());
        }
        self.span.in_scope(|| report.tell(self.registry.on_end()));
    }
}

/// Reports an attempt that the worker drops unfinished, because it stops or a timeout expires.
impl Drop for RunningJob {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        match self.drop_job() {
            Ok(()) => self.tell(JobEnd::Aborted, None),
            Err(panic) => self.tell(JobEnd::Panicked, Some(&self.panicked(&panic))),
        }
    }
}

impl Future for RunJob {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.stage, Stage::Waiting(_)) {
            if let Stage::Waiting(waiting) = mem::replace(&mut self.stage, Stage::Done) {
                self.stage = Stage::Running(waiting.start()?);
            }
        }
        let Stage::Running(running) = &mut self.stage else {
            return Poll::Pending;
        };
        let result = ready!(running.poll(cx));
        self.stage = Stage::Done;
        Poll::Ready(result)
    }
}

impl fmt::Debug for RunJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Waiting(_) => "waiting",
            Stage::Running(_) => "running",
            Stage::Done => "done",
        };
        f.debug_struct("RunJob")
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}
