//! `add_job`: the one place that decides where a job goes.

use std::{any::Any, collections::HashMap, panic::Location, sync::Arc, time::Duration};

use super::{
    job_request::JobOptions,
    job_side::JobSide,
    registered::Registry,
    settings::JobSettings,
    store::{PushError, push_in, push_within},
    work::JobWork,
};
use crate::{
    AddJobError, AddJobErrorKind, AddTaskError, BackgroundTasks, BoxError, IntoJob, Job,
    JobContext, JobId, JobRequest, JobStore, Runner, StoredJob, Task, queue::Queue,
    task::context::ContextSource,
};

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl BackgroundTasks {
    /// Adds a job.
    ///
    /// If the runner has no [`job_store`](crate::RunnerBuilder::job_store), the job is a task of
    /// this request. It runs here once the response has ended, and this resolves at once.
    ///
    /// If the runner has one, this resolves when the store has the job. From then on the job runs
    /// at least once, on any worker, whatever becomes of this process and of the response.
    ///
    /// In a queue that is [held](Self::hold), a job runs only if it is released. With a store, it is
    /// then a task of this request, which hands the job to the store once the response has ended: a
    /// process that is killed in between loses it. [`add_job_in`](Self::add_job_in) loses none.
    ///
    /// Returns the job's id, which is also [`JobContext::id`].
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// # use serde::{Deserialize, Serialize};
    /// # use tower_background_tasks::{AddJobError, BackgroundTasks, Job, JobContext, TaskResult};
    /// # #[derive(Serialize, Deserialize)] struct WelcomeEmail { to: String }
    /// # impl Job for WelcomeEmail {
    /// #     const NAME: &'static str = "welcome-email";
    /// #     type State = ();
    /// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
    /// # }
    ///
    /// async fn signup(tasks: BackgroundTasks) -> Result<StatusCode, AddJobError> {
    ///     // As a response, the error is a 503.
    ///     tasks.add_job(WelcomeEmail { to: "ferris@example.org".into() }).await?;
    ///     Ok(StatusCode::CREATED)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// This returns an error, with the job in it:
    ///
    /// - when the job is not registered,
    /// - when the runner refuses it, for the reasons of [`try_add_task`](Self::try_add_task),
    /// - when the store fails or does not answer in time,
    /// - when it keeps another job of the same [key](Job::unique).
    ///
    /// See [`AddJobErrorKind`](crate::AddJobErrorKind).
    ///
    /// # Cancel safety
    ///
    /// Nothing is added before the first poll. If this is dropped while it waits for a store, the
    /// store may or may not have the job.
    #[track_caller]
    pub fn add_job<J: IntoJob>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<JobId, AddJobError>> + Send + use<J> {
        let (queue, location) = (Arc::clone(self.queue()), Location::caller());
        add(queue, job.into_request(), location)
    }

    /// Has the [`job_store`](crate::RunnerBuilder::job_store) keep a job by the caller's own
    /// connection or transaction. The job is there when the transaction commits, and otherwise it
    /// never was: an outbox.
    ///
    /// `connection` is what the store inserts by: sqlx's `PgConnection` for a `PostgresStore`, its
    /// `SqliteConnection` for a `SqliteStore`. A transaction derefs to it: `&mut *tx`. `PostgresStore`
    /// has an example. The store's timeout does not hold here; a transaction has its own.
    ///
    /// A queue that is [held](Self::hold) makes no difference: the transaction decides.
    ///
    /// # Errors
    ///
    /// Those of [`add_job`](Self::add_job), and
    /// [`NeedsStore`](crate::AddJobErrorKind::NeedsStore) if the runner has no store. After a
    /// [`Duplicate`](crate::AddJobErrorKind::Duplicate) the transaction is still good.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped, the transaction may or may not have the job.
    pub async fn add_job_in<C: Any + Send, J: IntoJob>(
        &self,
        connection: &mut C,
        job: J,
    ) -> Result<JobId, AddJobError> {
        add_in(self.queue(), connection, job.into_request()).await
    }

    /// Adds a job that `insert` keeps: an outbox in any database, by any client.
    ///
    /// `insert` gets what is to be stored, with its id and the request and the trace that it comes
    /// from. With apalis, [`StoredJob::into_task`] makes the task of it. The runner needs no store.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tower_background_tasks::{BackgroundTasks, BoxError, Job, JobContext, StoredJob, TaskResult};
    /// # #[derive(Serialize, Deserialize)] struct ShipOrder { number: u64 }
    /// # impl Job for ShipOrder {
    /// #     const NAME: &'static str = "ship-order";
    /// #     type State = ();
    /// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
    /// # }
    /// # struct Transaction;
    /// # impl Transaction {
    /// #     async fn insert(&mut self, _: &str, _: String) -> Result<(), BoxError> { Ok(()) }
    /// #     async fn commit(self) -> Result<(), BoxError> { Ok(()) }
    /// # }
    /// async fn order(tasks: BackgroundTasks, mut tx: Transaction) -> Result<(), BoxError> {
    ///     tx.insert("orders", "42".into()).await?;
    ///     let insert = async |stored: StoredJob| {
    ///         let job = serde_json::to_string(&stored)?;
    ///         tx.insert("outbox", job).await
    ///     };
    ///     tasks.add_job_with(ShipOrder { number: 42 }, insert).await?;
    ///     tx.commit().await // both, or neither
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// This returns an error, with the job in it, when the job is not registered with the runner's
    /// [`jobs`](crate::RunnerBuilder::jobs), if it has any; when it cannot be serialised or is too
    /// large; and when `insert` fails. A [`DuplicateJob`](crate::DuplicateJob) of `insert`'s is a
    /// [`Duplicate`](crate::AddJobErrorKind::Duplicate).
    ///
    /// # Cancel safety
    ///
    /// As that of `insert`.
    pub async fn add_job_with<J: IntoJob, E: Into<BoxError>>(
        &self,
        job: J,
        insert: impl AsyncFnOnce(StoredJob) -> Result<(), E>,
    ) -> Result<JobId, AddJobError> {
        add_with(self.queue(), job.into_request(), insert).await
    }
}

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl Runner {
    /// Adds a job of no request. It starts at once, or goes to the
    /// [`job_store`](crate::RunnerBuilder::job_store).
    ///
    /// All else is as for [`BackgroundTasks::add_job`].
    /// [`RunnerBuilder::jobs`](crate::RunnerBuilder::jobs) has an example.
    ///
    /// # Errors
    ///
    /// This returns an error, with the job in it:
    ///
    /// - when the job is not registered,
    /// - when the runner refuses it,
    /// - when the store fails or does not answer in time.
    ///
    /// # Cancel safety
    ///
    /// Nothing is added before the first poll. If this is dropped while it waits for a store, the
    /// store may or may not have the job.
    #[track_caller]
    pub fn add_job<J: IntoJob>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<JobId, AddJobError>> + Send + use<J> {
        let (owner, location) = (Arc::clone(self.owner()), Location::caller());
        let request = job.into_request();
        async move { add(Queue::of_no_request(owner), request, location).await }
    }

    /// Adds a job of no request by the caller's own connection or transaction. All else is as for
    /// [`BackgroundTasks::add_job_in`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped, the transaction may or may not have the job.
    pub async fn add_job_in<C: Any + Send, J: IntoJob>(
        &self,
        connection: &mut C,
        job: J,
    ) -> Result<JobId, AddJobError> {
        let queue = Queue::of_no_request(Arc::clone(self.owner()));
        add_in(&queue, connection, job.into_request()).await
    }

    /// Adds a job of no request that `insert` keeps. All else is as for
    /// [`BackgroundTasks::add_job_with`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As that of `insert`.
    pub async fn add_job_with<J: IntoJob, E: Into<BoxError>>(
        &self,
        job: J,
        insert: impl AsyncFnOnce(StoredJob) -> Result<(), E>,
    ) -> Result<JobId, AddJobError> {
        let queue = Queue::of_no_request(Arc::clone(self.owner()));
        add_with(&queue, job.into_request(), insert).await
    }
}

/// Adds a job to its request's queue, or to the runner's store.
async fn add<J: Job>(
    queue: Arc<Queue>,
    request: JobRequest<J>,
    location: &'static Location<'static>,
) -> Result<JobId, AddJobError> {
    let root = queue.root();
    match store_of(&queue, &root) {
        Some((settings, store)) => {
            let (job, stored) = to_stored(&queue, &root, request)?;
            let timeout = settings.store_timeout;
            if root.is_held() {
                return add_once_released(&root, Arc::clone(store), timeout, job, stored, location);
            }
            let id = stored.id();
            let pushed = push_within(&**store, stored, timeout).await;
            pushed.map_err(|error| AddJobError::not_stored(job, error))?;
            Ok(id)
        }
        None => add_to_queue(&queue, &root, request, location),
    }
}

/// Has `insert` keep a job.
async fn add_with<J: Job, E: Into<BoxError>>(
    queue: &Arc<Queue>,
    request: JobRequest<J>,
    insert: impl AsyncFnOnce(StoredJob) -> Result<(), E>,
) -> Result<JobId, AddJobError> {
    let (job, stored) = to_stored(queue, &queue.root(), request)?;
    let id = stored.id();
    match insert(stored).await {
        Ok(()) => Ok(id),
        Err(error) => Err(AddJobError::not_stored(job, PushError::of(error.into()))),
    }
}

/// Has the runner's store keep a job, by the caller's connection.
async fn add_in<J: Job>(
    queue: &Arc<Queue>,
    connection: &mut (dyn Any + Send),
    request: JobRequest<J>,
) -> Result<JobId, AddJobError> {
    let root = queue.root();
    let Some((_, store)) = store_of(queue, &root) else {
        return Err(AddJobError::needs_store(request.job));
    };
    let insert = async |stored| push_in(&**store, connection, stored).await;
    add_with(queue, request, insert).await
}

/// Makes what a store keeps of a job.
fn to_stored<J: Job>(
    queue: &Arc<Queue>,
    root: &Queue,
    JobRequest { job, options }: JobRequest<J>,
) -> Result<(J, StoredJob), AddJobError> {
    if jobs_of(queue, root).is_some_and(|jobs| jobs.registered::<J>().is_none()) {
        return Err(AddJobError::not_registered(job));
    }
    match stored(root, &job) {
        Ok(stored) => Ok((job, stored.with_options(options))),
        Err(why) => Err(AddJobError::of_job(job, why)),
    }
}

/// Serialises a job, within the limit.
fn stored<J: Job>(queue: &Queue, job: &J) -> Result<StoredJob, AddJobErrorKind> {
    let stored = StoredJob::new(job).map_err(AddJobErrorKind::NotSerialised)?;
    let (bytes, limit) = (
        stored.payload().len(),
        JobSettings::max_bytes(queue.owner()),
    );
    if bytes > limit {
        return Err(AddJobErrorKind::TooLarge { bytes, limit });
    }
    Ok(stored.with_origin(queue.request(), trace(queue)))
}

/// Adds a job as a task.
fn add_to_queue<J: Job>(
    queue: &Arc<Queue>,
    root: &Arc<Queue>,
    JobRequest { job, options }: JobRequest<J>,
    location: &'static Location<'static>,
) -> Result<JobId, AddJobError> {
    let registered = jobs_of(queue, root).and_then(|jobs| jobs.registered::<J>());
    let Some(registered) = registered else {
        return Err(AddJobError::not_registered(job));
    };
    if options != JobOptions::default() {
        return Err(AddJobError::needs_store(job));
    }
    let may_spill = !has_own_jobs(queue) && spills(root);
    let kept = match may_spill.then(|| stored(root, &job)).transpose() {
        Ok(kept) => kept,
        Err(why) => return Err(AddJobError::of_job(job, why)),
    };
    let id = kept.as_ref().map_or_else(JobId::random, StoredJob::id);
    let mut task = Task::from_work(JobWork::new(job, move |job: J, task| {
        let cx = JobContext::of_task(id, J::NAME, task);
        job.run(registered.state.clone(), cx)
    }));
    if let Some(kept) = kept {
        task.attach(Arc::new(kept));
    }
    add_task::<J>(root, task, location).map(|()| id)
}

/// Adds a task that hands a job to the store: its queue runs it only if it is released.
fn add_once_released<J: Job>(
    queue: &Arc<Queue>,
    store: Arc<dyn JobStore>,
    timeout: Duration,
    job: J,
    stored: StoredJob,
    location: &'static Location<'static>,
) -> Result<JobId, AddJobError> {
    let (id, kept) = (stored.id(), Arc::new(stored));
    let stored = Arc::clone(&kept);
    let mut task = Task::from_work(JobWork::new(job, async move |_: J, _| {
        match push_within(&*store, StoredJob::clone(&stored), timeout).await {
            Ok(()) | Err(PushError::Duplicate(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }));
    if spills(queue) {
        task.attach(kept);
    }
    add_task::<J>(queue, task, location).map(|()| id)
}

/// Adds the task of a job.
fn add_task<J: Job>(
    queue: &Arc<Queue>,
    task: Task,
    location: &'static Location<'static>,
) -> Result<(), AddJobError> {
    match queue.add(task, location) {
        Ok(_) => Ok(()),
        Err(AddTaskError::Full(task) | AddTaskError::FullOfAwaiting(task)) => {
            Err(AddJobError::full(J::NAME, task))
        }
        Err(AddTaskError::Closed(task)) => Err(AddJobError::closed(J::NAME, task)),
    }
}

/// A queue with jobs of its own runs them, even after it is merged into another. The store of that
/// queue's runner does not get them.
fn has_own_jobs(queue: &Queue) -> bool {
    JobSide::of(queue).is_some_and(|side| side.jobs.is_some())
}

/// Returns the queue's own jobs if it has some, and otherwise those of its runner.
fn jobs_of<'a>(queue: &'a Queue, root: &'a Queue) -> Option<&'a Arc<Registry>> {
    let own = JobSide::of(queue).and_then(|side| side.jobs.as_ref());
    own.or_else(|| settings_of(root)?.jobs.as_ref())
}

/// Returns the store that keeps the jobs which are added to this queue.
fn store_of<'a>(
    queue: &Queue,
    root: &'a Queue,
) -> Option<(&'a JobSettings, &'a Arc<dyn JobStore>)> {
    let settings = settings_of(root).filter(|_| !has_own_jobs(queue))?;
    Some((settings, settings.store.as_ref()?))
}

fn spills(root: &Queue) -> bool {
    settings_of(root).is_some_and(|settings| settings.spill_store.is_some())
}

fn settings_of(queue: &Queue) -> Option<&JobSettings> {
    JobSettings::of(queue.owner()?)
}

/// Returns the current trace, or else the trace that the request came with.
fn trace(queue: &Queue) -> HashMap<String, String> {
    let current = settings_of(queue).map(JobSettings::trace);
    let current = current.filter(|trace| !trace.is_empty());
    let of_request = || JobSide::of(queue).map(JobSide::trace);
    current.or_else(of_request).unwrap_or_default()
}
