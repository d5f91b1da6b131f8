//! `add_job`: the only place that decides where a job goes.

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
    /// Without a [`job_store`](crate::RunnerBuilder::job_store), the job becomes a task of this
    /// request. It runs here once the response has ended, and this future resolves at once.
    ///
    /// With a store, this future resolves when the store has the job. The job then runs at least
    /// once, on any worker, even if this process dies or the response fails.
    ///
    /// In a [held](Self::hold) queue, a job runs only if the queue is released. With a store, a
    /// task of this request then hands the job over once the response has ended. If the store
    /// fails, or the job is a duplicate, the task fails, and the caller gets no error. If the
    /// process is killed before the task has run, the job is lost.
    /// [`add_job_in`](Self::add_job_in) loses no job.
    ///
    /// This returns the job's id, which is also [`JobContext::id`].
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
    /// This returns an error that holds the job when:
    ///
    /// - the job is not registered,
    /// - the runner refuses it, for the reasons of [`try_add_task`](Self::try_add_task),
    /// - the job has options, and the runner has no store,
    /// - the job cannot be serialised, or is too large,
    /// - the store fails, does not answer in time, or does not support an option of the job,
    /// - the store keeps another job of the same [key](Job::unique).
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

    /// Adds a job to the [`job_store`](crate::RunnerBuilder::job_store) through the caller's own
    /// connection or transaction: an outbox. The job exists only if the transaction commits.
    ///
    /// `connection` has the store's connection type: sqlx's `PgConnection` for a `PostgresStore`,
    /// and its `SqliteConnection` for a `SqliteStore`. A transaction derefs to it: `&mut *tx`.
    /// `PostgresStore` has an example. The store's timeout does not apply here.
    ///
    /// The job is inserted at once, even if the queue is [held](Self::hold): the transaction alone
    /// decides whether it runs.
    ///
    /// # Errors
    ///
    /// This returns an error when [`add_job`](Self::add_job) does, except for a timeout and a full
    /// or closed runner. The error is [`NeedsStore`](crate::AddJobErrorKind::NeedsStore) if there
    /// is no store, and [`Unsupported`](crate::AddJobErrorKind::Unsupported) if the connection is
    /// of another type. After a [`Duplicate`](crate::AddJobErrorKind::Duplicate), the transaction
    /// is still usable.
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

    /// Adds a job by calling `insert`: an outbox in any database, with any client.
    ///
    /// `insert` gets the [`StoredJob`], which has an id, and the request and trace that the job
    /// comes from. [`StoredJob::into_task`] converts it to a task of apalis. The runner needs no
    /// store.
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
    /// This returns an error that holds the job when:
    ///
    /// - the runner or stand-alone queue has [`jobs`](crate::RunnerBuilder::jobs), and this job is
    ///   not one of them,
    /// - the job cannot be serialised, or is too large,
    /// - `insert` fails. If it returns a [`DuplicateJob`](crate::DuplicateJob), the kind is
    ///   [`Duplicate`](crate::AddJobErrorKind::Duplicate).
    ///
    /// # Cancel safety
    ///
    /// This is as cancel safe as `insert`.
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
    /// Adds a job that belongs to no request. It starts at once, or goes to the
    /// [`job_store`](crate::RunnerBuilder::job_store).
    ///
    /// Otherwise this behaves as [`BackgroundTasks::add_job`] does.
    /// [`RunnerBuilder::jobs`](crate::RunnerBuilder::jobs) has an example.
    ///
    /// # Errors
    ///
    /// This returns an error when [`BackgroundTasks::add_job`] does.
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

    /// Adds a job that belongs to no request through the caller's own connection or transaction.
    /// Otherwise this behaves as [`BackgroundTasks::add_job_in`] does.
    ///
    /// # Errors
    ///
    /// This returns an error when [`BackgroundTasks::add_job_in`] does.
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

    /// Adds a job that belongs to no request by calling `insert`. Otherwise this behaves as
    /// [`BackgroundTasks::add_job_with`] does.
    ///
    /// # Errors
    ///
    /// This returns an error when [`BackgroundTasks::add_job_with`] does.
    ///
    /// # Cancel safety
    ///
    /// This is as cancel safe as `insert`.
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

/// Makes the stored form of a job. If the queue or runner has jobs, the job must be one of them.
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

/// Serialises a job. Its payload must not exceed the limit.
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

/// Adds a task that pushes a job to the store. A held queue runs the task only once released.
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
        let pushed = push_within(&*store, StoredJob::clone(&stored), timeout).await;
        pushed.map_err(BoxError::from)
    }));
    if spills(queue) {
        task.attach(kept);
    }
    add_task::<J>(queue, task, location).map(|()| id)
}

/// Adds a job's task. If the queue refuses the task, the error gives back the job.
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

/// Returns true if the queue has jobs of its own. They run as tasks, even after the queue is
/// merged into another queue, whose runner has a store.
fn has_own_jobs(queue: &Queue) -> bool {
    JobSide::of(queue).is_some_and(|side| side.jobs.is_some())
}

/// Returns the queue's own jobs, or else those of its runner.
fn jobs_of<'a>(queue: &'a Queue, root: &'a Queue) -> Option<&'a Arc<Registry>> {
    let own = JobSide::of(queue).and_then(|side| side.jobs.as_ref());
    own.or_else(|| settings_of(root)?.jobs.as_ref())
}

/// Returns the store for jobs that are added to this queue.
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

/// Returns the current trace, or else the one that the request came with.
fn trace(queue: &Queue) -> HashMap<String, String> {
    let current = settings_of(queue).map(JobSettings::trace);
    let current = current.filter(|trace| !trace.is_empty());
    let of_request = || JobSide::of(queue).map(JobSide::trace);
    current.or_else(of_request).unwrap_or_default()
}
