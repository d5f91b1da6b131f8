//! [`RunJob`]: a stored job on a worker.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    registered::{Registry, Running},
    span::JobSpan,
};
use crate::{
    BoxError, JobContext, RunJobError, StoredJob, TaskResult,
    util::contain::{contain, contain_drop},
    util::panic::TaskPanic,
};

/// Runs a stored job: from [`Jobs::run`](crate::Jobs::run).
///
/// It does nothing until it is polled. If the job panics, the panic is contained and becomes the
/// error.
#[must_use = "futures do nothing unless polled"]
pub struct RunJob {
    stage: Stage,
}

enum Stage {
    Waiting(Box<Waiting>),
    Running {
        /// `None` once the job has ended.
        job: Option<Running>,
        name: &'static str,
        span: JobSpan,
    },
    Done,
}

struct Waiting {
    registry: Arc<Registry>,
    stored: StoredJob,
    attempt: Attempt,
}

/// How often the store has run the job, this run included.
pub(crate) enum Attempt {
    Given(u32),
    /// apalis counts when it first polls the future that runs the job, which is later than this is
    /// made.
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

impl Waiting {
    fn start(self) -> Result<Stage, RunJobError> {
        if !self.stored.is_readable() {
            return Err(RunJobError::Unreadable);
        }
        let Some(entry) = self.registry.entry(self.stored.name()) else {
            let name = self.stored.name().to_owned();
            return Err(RunJobError::NotRegistered { name });
        };
        let (name, id) = (entry.name(), self.stored.id());
        let attempt = self.stored.attempts().saturating_add(self.attempt.number());
        let span = JobSpan::open(&self.registry, &self.stored, attempt);
        let (payload, request, _) = self.stored.into_parts();
        let cx = JobContext::on_worker(id, name, attempt, request);
        let job = contain(|| span.in_scope(|| entry.start(&payload, cx)));
        let job = job.map_err(|panic| panicked(name, &panic))??;
        Ok(Stage::Running {
            job: Some(job),
            name,
            span,
        })
    }
}

impl Stage {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TaskResult> {
        let Self::Running {
            job: slot,
            name,
            span,
        } = self
        else {
            return Poll::Pending;
        };
        let Some(job) = slot else {
            return Poll::Pending;
        };
        let polled = contain(|| span.in_scope(|| job.as_mut().poll(cx)));
        let result = match polled {
            Ok(polled) => ready!(polled),
            Err(panic) => Err(panicked(name, &panic).into()),
        };
        // The job is dropped in its span, and before a waiter hears of its end.
        let dropped = contain(|| span.in_scope(|| *slot = None));
        Poll::Ready(match dropped {
            Ok(()) => result,
            Err(panic) => {
                let _ = contain_drop(result);
                Err(panicked(name, &panic).into())
            }
        })
    }
}

impl Future for RunJob {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.stage, Stage::Waiting(_)) {
            if let Stage::Waiting(waiting) = mem::replace(&mut self.stage, Stage::Done) {
                self.stage = waiting.start()?;
            }
        }
        let result = ready!(self.stage.poll(cx));
        self.stage = Stage::Done;
        Poll::Ready(result)
    }
}

/// Drops an unfinished job in its span, and contained.
impl Drop for RunJob {
    fn drop(&mut self) {
        if let Stage::Running { job, span, .. } = &mut self.stage {
            let _ = contain(|| span.in_scope(|| *job = None));
        }
    }
}

impl fmt::Debug for RunJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Waiting(_) => "waiting",
            Stage::Running { .. } => "running",
            Stage::Done => "done",
        };
        f.debug_struct("RunJob")
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}

fn panicked(name: &str, panic: &TaskPanic) -> RunJobError {
    RunJobError::Panicked {
        name: name.to_owned(),
        message: panic.to_string(),
    }
}
