//! [`ApalisStore`], and [`Jobs`] as the service of an apalis worker.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{BackendConfig, TaskSink},
    task::{Task, builder::TaskBuilder},
};
use tower::Service;

use super::{apalis_task::Prepare, retries::Failed, run::Attempt, store::text_of};
use crate::{
    BoxError, JobStore, Jobs, PushFuture, StoredJob, UnsupportedByStore,
    util::contain::contain,
    util::sync::{Mutex, lock},
};

/// A [`JobStore`] over any backend of apalis 1.x that stores [`StoredJob`] and can be cloned:
/// `SQLite`, Postgres, Redis and others.
///
/// Workers are apalis' own. With [`Jobs`] as the worker's service, each job knows its attempt:
///
/// ```
/// use apalis_core::{backend::dequeue::VecDequeBackend, worker::builder::WorkerBuilder};
/// use serde::{Deserialize, Serialize};
/// use tower_background_tasks::{ApalisStore, Job, JobContext, Jobs, Runner, TaskResult};
///
/// #[derive(Serialize, Deserialize)]
/// struct WelcomeEmail { to: String }
///
/// impl Job for WelcomeEmail {
///     const NAME: &'static str = "welcome-email";
///     type State = ();
///     async fn run(self, (): (), cx: JobContext) -> TaskResult {
///         println!("Welcome, {}! (attempt {})", self.to, cx.attempt());
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let storage = VecDequeBackend::new(); // or a `SqliteStorage`, a `PostgresStorage`, …
/// let jobs = Jobs::new(()).register::<WelcomeEmail>();
///
/// // The server:
/// let runner = Runner::builder()
///     .jobs(jobs.clone())
///     .job_store(ApalisStore::new(storage.clone()))
///     .build();
/// runner.add_job(WelcomeEmail { to: "ferris@example.org".into() }).await?;
///
/// // The worker, here or elsewhere:
/// let worker = WorkerBuilder::new("worker-1").backend(storage).build(jobs);
/// tokio::select! {
///     ended = worker.run() => ended?,
///     // Or until a signal comes.
///     () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
/// }
/// # Ok(())
/// # }
/// ```
///
/// A worker that does more than run jobs is built from a function:
///
/// ```
/// use apalis_core::{error::BoxDynError, task::{attempt::Attempt, data::Data}};
/// use tower_background_tasks::{Jobs, StoredJob};
///
/// /// For `WorkerBuilder::new("worker-1").backend(storage).data(jobs).build(work)`.
/// async fn work(
///     stored: StoredJob,
///     attempt: Attempt,
///     jobs: Data<Jobs<()>>,
/// ) -> Result<(), BoxDynError> {
///     let attempt = attempt.current().try_into()?;
///     jobs.run_attempt(stored, attempt).await
/// }
/// ```
///
/// # What to set on a backend
///
/// - The queue's name. By default apalis derives it from the type's path, which another version of
///   this crate may change.
/// - On the worker's side, a [`PollInterval`](crate::PollInterval). Without it, a job that another
///   process pushed may wait for the worker's next heartbeat.
/// - How soon a failed job is tried again, with [`Jobs::retry`]. Without it, backends differ.
/// - How many attempts a job has: call `max_attempts` in [`prepared`](Self::prepared).
///
/// # What it does not do
///
/// Backends have no common way to insert through the caller's transaction
/// ([`add_job_in`](crate::BackgroundTasks::add_job_in)), or to detect duplicates
/// ([`Job::unique`](crate::Job::unique)). This store refuses both. `PostgresStore` (feature
/// `postgres`) and `SqliteStore` (feature `sqlite`) do both.
///
/// This store hands [`Job::after`](crate::Job::after) and [`Job::priority`](crate::Job::priority)
/// to the backend, which may ignore them: `VecDequeBackend` ignores both, and Redis has no
/// priorities.
#[derive(Clone)]
pub struct ApalisStore<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    /// Each push clones the backend, because pushing needs `&mut`. The lock is for backends that
    /// are not `Sync`.
    storage: Mutex<S>,
    prepare: Prepare,
}

impl<S> ApalisStore<S> {
    /// Makes a store that keeps jobs in `storage`.
    pub fn new(storage: S) -> Self {
        Self::with(storage, Prepare::default())
    }

    /// Makes a store that keeps jobs in `storage`. `prepare` sets up each task: its number of
    /// attempts, priority or time. It gets a task on which the job's own options are set.
    ///
    /// ```
    /// use apalis_core::backend::dequeue::VecDequeBackend;
    /// use tower_background_tasks::{ApalisStore, StoredJob};
    ///
    /// let storage = VecDequeBackend::<StoredJob>::new();
    /// let store = ApalisStore::prepared(storage, |stored, task| match stored.name() {
    ///     "charge" => task.max_attempts(50).priority(9),
    ///     _ => task.max_attempts(5),
    /// });
    /// # drop(store);
    /// ```
    pub fn prepared(
        storage: S,
        prepare: impl Fn(&StoredJob, TaskBuilder<()>) -> TaskBuilder<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with(storage, Prepare::by(prepare))
    }

    fn with(storage: S, prepare: Prepare) -> Self {
        let storage = Mutex::new(storage);
        Self {
            shared: Arc::new(Shared { storage, prepare }),
        }
    }
}

const NO_KEYS: &str = "an `ApalisStore` tells no duplicates: `unique` needs a `PostgresStore` or a \
    `SqliteStore`";

impl<S> JobStore for ApalisStore<S>
where
    S: TaskSink<StoredJob, <S as BackendConfig>::Kind> + BackendConfig + Clone + Send + 'static,
{
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        Box::pin(async move {
            if job.unique_key().is_some() {
                return Err(UnsupportedByStore::new(NO_KEYS).into());
            }
            let task = self.shared.prepare.task_of(job).build();
            let mut storage = lock(&self.shared.storage).clone();
            storage.push_task(task).await?;
            Ok(())
        })
    }
}

/// How many attempts apalis' backends give a task that has no limit of its own.
pub(super) const MAX_ATTEMPTS: usize = 25;

/// The service of an apalis worker: `WorkerBuilder::new(…).backend(…).build(jobs)`.
#[cfg_attr(docsrs, doc(cfg(feature = "apalis")))]
impl<S> Service<Task<StoredJob>> for Jobs<S> {
    type Response = ();
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<StoredJob>) -> Self::Future {
        let (id, is_job, retries) = (task.args.id(), task.args.is_readable(), self.retries());
        let max_attempts = task.max_attempts().unwrap_or(MAX_ATTEMPTS);
        let attempt = task.raw_attempt().clone();
        let run = self.run_with(task.args, Attempt::Counted(attempt.clone()));
        Box::pin(async move {
            let Err(error) = run.await else { return Ok(()) };
            let error = printable(error);
            let Some(retries) = retries else {
                return Err(error);
            };
            let failed = Failed {
                id,
                is_job,
                attempt: attempt.current(),
                max_attempts,
            };
            Err(retries.after(failed, error).await)
        })
    }
}

/// Replaces an error that panics when it is printed. apalis prints it outside of the job, and its
/// worker would end.
fn printable(error: BoxError) -> BoxError {
    match contain(|| error.to_string()) {
        Ok(_) => error,
        Err(_) => text_of(error).into(),
    }
}

impl<S> fmt::Debug for ApalisStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApalisStore").finish_non_exhaustive()
    }
}
