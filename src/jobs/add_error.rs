//! [`AddJobError`].

use std::{any::Any, error::Error, fmt, time::Duration};

use sync_wrapper::SyncWrapper;

use super::store::PushError;
use crate::{BoxError, DuplicateJob, Job, Task, UnsupportedByStore};

/// A job was refused. [`BackgroundTasks::add_job`](crate::BackgroundTasks::add_job) returns this
/// error, and [`into_job`](Self::into_job) gives back the job.
///
/// As an axum response, this is a 503, or a 409 for a duplicate. If the program is at fault, the
/// response is a 500 without details, and this error's text is logged.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tower_background_tasks::{AddJobErrorKind, Job, JobContext, Runner, TaskResult};
/// # #[derive(Debug, Serialize, Deserialize)] struct WelcomeEmail { to: String }
/// # impl Job for WelcomeEmail {
/// #     const NAME: &'static str = "welcome-email";
/// #     type State = ();
/// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let runner = Runner::new(); // without `jobs`
/// let email = WelcomeEmail { to: "ferris@example.org".into() };
/// let error = runner.add_job(email).await.unwrap_err();
/// assert!(matches!(error.kind(), AddJobErrorKind::NotRegistered));
/// let job: WelcomeEmail = error.into_job().unwrap(); // to try again, or to keep elsewhere
/// assert_eq!(job.to, "ferris@example.org");
/// # }
/// ```
pub struct AddJobError {
    name: &'static str,
    kind: AddJobErrorKind,
    /// The wrapper makes the error `Sync` even if the job is not.
    job: SyncWrapper<Box<dyn Any + Send>>,
}

/// Why a job was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum AddJobErrorKind {
    /// No job of that type is registered with [`RunnerBuilder::jobs`](crate::RunnerBuilder::jobs).
    /// A stand-alone queue takes its jobs from
    /// [`BackgroundTasks::with_jobs`](crate::BackgroundTasks::with_jobs).
    NotRegistered,
    /// Too many tasks wait: [`RunnerBuilder::max_pending`](crate::RunnerBuilder::max_pending) or
    /// [`RunnerBuilder::max_awaiting_response`](crate::RunnerBuilder::max_awaiting_response) is
    /// reached.
    Full,
    /// The runner has shut down.
    Closed,
    /// The job cannot be serialised to JSON.
    NotSerialised(serde_json::Error),
    /// The store, or the caller's `insert`, returned an error. If only the answer was lost, the
    /// store may still have the job.
    StoreFailed(BoxError),
    /// The store did not answer within this time
    /// ([`RunnerBuilder::job_store_timeout`](crate::RunnerBuilder::job_store_timeout)), but it may
    /// still have the job. A job that is then added again may run twice, under two ids, unless it
    /// is [unique](Job::unique).
    StoreTimedOut(Duration),
    /// The store keeps another job of the same name and [key](Job::unique).
    /// [`DuplicateJob::id`] is that job's id, if the store knows it.
    Duplicate(DuplicateJob),
    /// The runner has no [`job_store`](crate::RunnerBuilder::job_store). Options
    /// ([`JobRequest`](crate::JobRequest)) and transactions need one.
    NeedsStore,
    /// The store does not support an option of the job, or a connection of this type.
    Unsupported(UnsupportedByStore),
    /// The payload is larger than
    /// [`RunnerBuilder::max_job_bytes`](crate::RunnerBuilder::max_job_bytes) allows.
    TooLarge {
        /// The size of the payload, in bytes of JSON.
        bytes: usize,
        /// The largest size that is allowed, in bytes.
        limit: usize,
    },
}

impl AddJobError {
    fn new(name: &'static str, kind: AddJobErrorKind, job: Box<dyn Any + Send>) -> Self {
        Self {
            name,
            kind,
            job: SyncWrapper::new(job),
        }
    }

    pub(super) fn of_job<J: Job>(job: J, kind: AddJobErrorKind) -> Self {
        Self::new(J::NAME, kind, Box::new(job))
    }

    fn of_task(name: &'static str, kind: AddJobErrorKind, mut task: Task) -> Self {
        let job = task.take_job().unwrap_or_else(|| Box::new(()));
        Self::new(name, kind, job)
    }

    pub(crate) fn not_registered<J: Job>(job: J) -> Self {
        Self::of_job(job, AddJobErrorKind::NotRegistered)
    }

    pub(crate) fn full(name: &'static str, task: Task) -> Self {
        Self::of_task(name, AddJobErrorKind::Full, task)
    }

    pub(crate) fn closed(name: &'static str, task: Task) -> Self {
        Self::of_task(name, AddJobErrorKind::Closed, task)
    }

    pub(crate) fn needs_store<J: Job>(job: J) -> Self {
        Self::of_job(job, AddJobErrorKind::NeedsStore)
    }

    pub(crate) fn not_stored<J: Job>(job: J, error: PushError) -> Self {
        Self::of_job(
            job,
            match error {
                PushError::Failed(error) => AddJobErrorKind::StoreFailed(error),
                PushError::TimedOut(limit) => AddJobErrorKind::StoreTimedOut(limit),
                PushError::Duplicate(duplicate) => AddJobErrorKind::Duplicate(duplicate),
                PushError::Unsupported(error) => AddJobErrorKind::Unsupported(error),
            },
        )
    }

    /// Returns why the job was refused.
    pub fn kind(&self) -> &AddJobErrorKind {
        &self.kind
    }

    /// Returns [`Job::NAME`].
    pub fn job_name(&self) -> &'static str {
        self.name
    }

    /// Returns the job.
    ///
    /// # Errors
    ///
    /// This returns this error unchanged when the job is not a `J`.
    pub fn into_job<J: Job>(self) -> Result<J, Self> {
        match self.job.into_inner().downcast() {
            Ok(job) => Ok(*job),
            Err(job) => Err(Self::new(self.name, self.kind, job)),
        }
    }

    /// Returns true if trying again does not help: the program is at fault, or the store has the
    /// job already.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self.kind,
            AddJobErrorKind::NotRegistered
                | AddJobErrorKind::Duplicate(_)
                | AddJobErrorKind::NotSerialised(_)
                | AddJobErrorKind::NeedsStore
                | AddJobErrorKind::Unsupported(_)
                | AddJobErrorKind::TooLarge { .. }
        )
    }

    /// Returns the job that has the same key, if this job is a duplicate.
    pub fn duplicate(&self) -> Option<DuplicateJob> {
        match self.kind {
            AddJobErrorKind::Duplicate(duplicate) => Some(duplicate),
            _ => None,
        }
    }
}

impl fmt::Display for AddJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match &self.kind {
            AddJobErrorKind::NotRegistered => write!(
                f,
                "job `{name}` is not registered: give the runner's builder `jobs(Jobs::new(…).register::<…>())`, or a stand-alone queue `with_jobs`"
            ),
            AddJobErrorKind::Full => write!(
                f,
                "job `{name}` was refused, as too many background tasks are waiting: answer 503, or raise the runner's `max_pending` or `max_awaiting_response`"
            ),
            AddJobErrorKind::Closed => write!(
                f,
                "job `{name}` was refused, as the background task runner has shut down: stop the server before the runner"
            ),
            AddJobErrorKind::NotSerialised(_) => write!(
                f,
                "job `{name}` cannot be serialised: its fields must be what JSON can hold"
            ),
            AddJobErrorKind::StoreFailed(_) => write!(
                f,
                "job `{name}` was not stored: answer 503, and look after the store"
            ),
            AddJobErrorKind::StoreTimedOut(limit) => write!(
                f,
                "job `{name}` was not stored within {limit:?}: answer 503, or raise `job_store_timeout`"
            ),
            AddJobErrorKind::Duplicate(duplicate) => write!(
                f,
                "job `{name}` was not stored, as {duplicate}: answer as if it had been, or 409"
            ),
            AddJobErrorKind::NeedsStore => write!(
                f,
                "job `{name}` was refused, as its options or its transaction need a store: give the runner's builder a `job_store`"
            ),
            AddJobErrorKind::Unsupported(error) => write!(f, "job `{name}` was refused: {error}"),
            AddJobErrorKind::TooLarge { bytes, limit } => write!(
                f,
                "job `{name}` has a payload of {bytes} bytes, and {limit} are allowed: keep its data elsewhere, or raise `max_job_bytes`"
            ),
        }
    }
}

impl Error for AddJobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            AddJobErrorKind::NotSerialised(error) => Some(error),
            AddJobErrorKind::StoreFailed(error) => Some(&**error),
            _ => None,
        }
    }
}

/// Omits the job, which need not be `Debug` and may hold data that does not belong in a log.
impl fmt::Debug for AddJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddJobError")
            .field("job_name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A 503, or a 409 for a duplicate. If the program is at fault, this is a 500 without details, and
/// the remedy is logged as an error.
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl axum_core::response::IntoResponse for AddJobError {
    fn into_response(self) -> axum_core::response::Response {
        use crate::observe::report;
        use http::StatusCode;

        if let Some(duplicate) = self.duplicate() {
            let first = duplicate.id().map(|id| format!(" as {id}"));
            let text = format!("already accepted{}", first.unwrap_or_default());
            (StatusCode::CONFLICT, text).into_response()
        } else if self.is_permanent() {
            report::program_at_fault(&self);
            (StatusCode::INTERNAL_SERVER_ERROR, "internal server error").into_response()
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "too busy, try again later").into_response()
        }
    }
}
