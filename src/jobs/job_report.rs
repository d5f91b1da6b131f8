//! [`JobReport`]: what observers learn of an attempt that ended on a worker. Keeps the promise
//! "nothing disappears" for workers.

use std::{error::Error, time::Duration};

#[cfg(feature = "tracing")]
use crate::task::end::with_causes;
use crate::{JobId, JobOrigin, RunJobError, observe::metrics, util::contain::contain};

/// An attempt of a stored job that has ended on a worker, for
/// [`Jobs::on_job_end`](crate::Jobs::on_job_end). If the attempt failed, the worker may try the
/// job again.
#[derive(Debug)]
pub struct JobReport<'a> {
    pub(super) id: JobId,
    pub(super) name: &'a str,
    /// The job's name, if a job of that name is registered.
    pub(super) registered: Option<&'static str>,
    pub(super) attempt: u32,
    pub(super) request: Option<&'a JobOrigin>,
    pub(super) end: JobEnd,
    pub(super) error: Option<&'a (dyn Error + Send + Sync + 'static)>,
    pub(super) ran: Duration,
}

pub(crate) type OnJobEnd = dyn Fn(&JobReport<'_>) + Send + Sync;

/// How an attempt of a stored job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobEnd {
    /// The job returned `Ok`.
    Completed,
    /// The job returned an error.
    Failed,
    /// The job panicked.
    Panicked,
    /// The job did not run: its name is not registered, its payload does not parse, or the stored
    /// value is not a job ([`RunJobError`]).
    Unreadable,
    /// The worker dropped the job before its end, because the worker stopped or a timeout expired.
    Aborted,
}

impl JobEnd {
    /// The words of [`as_str`](Self::as_str), in the order of the variants.
    const WORDS: &'static [&'static str] =
        &["completed", "failed", "panicked", "unreadable", "aborted"];

    /// Returns one word for fields and labels: `completed`, `failed`, `panicked`, `unreadable` or
    /// `aborted`.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// Returns how an attempt ended that could not start.
    pub(super) fn of(error: &RunJobError) -> Self {
        match error {
            RunJobError::Panicked { .. } => Self::Panicked,
            RunJobError::NotRegistered { .. }
            | RunJobError::Payload { .. }
            | RunJobError::Unreadable => Self::Unreadable,
        }
    }
}

impl JobReport<'_> {
    /// Returns the job's id, which is the same for each attempt.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Returns the job's name, as it was stored.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Returns true if a job of that name is registered. Otherwise the name can be any text.
    pub fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// Returns the number of this attempt, which is 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the request that added the job, or `None` if no request did.
    pub fn request(&self) -> Option<&JobOrigin> {
        self.request
    }

    /// Returns how the attempt ended.
    pub fn end(&self) -> JobEnd {
        self.end
    }

    /// Returns the job's own error or a [`RunJobError`]. Returns `None` if the attempt completed
    /// or was aborted.
    pub fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.error
    }

    /// Returns how long the attempt ran.
    pub fn ran(&self) -> Duration {
        self.ran
    }

    /// Reports the end to each observer. Observers are user code: if one panics, the next is still
    /// called.
    pub(super) fn tell(&self, on_end: Option<&OnJobEnd>) {
        metrics::job_ended(self.registered, self.end.as_str(), JobEnd::WORDS, self.ran);
        #[cfg(feature = "tracing")]
        let _ = contain(|| self.log());
        if let Some(on_end) = on_end {
            let _ = contain(|| on_end(self));
        }
    }

    /// Logs the attempt. The surrounding span names the job and its request.
    #[cfg(feature = "tracing")]
    fn log(&self) {
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "tower_background_tasks",
                    {
                        task.name = self.name,
                        task.end = self.end.as_str(),
                        task.attempt = i64::from(self.attempt),
                        error = self.error.map(|error| with_causes(error)).as_deref(),
                        task.running_seconds = self.ran.as_secs_f64(),
                    },
                    "background job {}",
                    self.end.as_str(),
                )
            };
        }
        match self.end {
            JobEnd::Completed => log!(debug),
            JobEnd::Failed | JobEnd::Aborted => log!(warn),
            JobEnd::Panicked | JobEnd::Unreadable => log!(error),
        }
    }
}
