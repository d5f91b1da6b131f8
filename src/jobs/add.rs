//! `add_job`: the one place that decides where a job goes.

use std::{collections::HashMap, panic::Location, sync::Arc};

use super::{
    job_side::JobSide, registered::Registered, settings::JobSettings, store::push_within,
    work::JobWork,
};
use crate::{
    AddJobError, AddTaskError, BackgroundTasks, Job, JobContext, JobId, JobStore, Runner,
    StoredJob, Task, queue::Queue, task::context::ContextSource,
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
    ///     tasks.add_job(WelcomeEmail { to: "ferris@example.org".into() }).await?; // as a response the error is a 503
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
    /// - when the store fails or does not answer in time.
    ///
    /// See [`AddJobErrorKind`](crate::AddJobErrorKind).
    ///
    /// # Cancel safety
    ///
    /// Nothing is added before the first poll. If this is dropped while it waits for a store, the
    /// store may or may not have the job.
    #[track_caller]
    pub fn add_job<J: Job>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<JobId, AddJobError>> + Send + use<J> {
        add(Arc::clone(self.queue()), job, Location::caller())
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
    pub fn add_job<J: Job>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<JobId, AddJobError>> + Send + use<J> {
        let (owner, location) = (Arc::clone(self.owner()), Location::caller());
        async move { add(Queue::of_no_request(owner), job, location).await }
    }
}

async fn add<J: Job>(
    queue: Arc<Queue>,
    job: J,
    location: &'static Location<'static>,
) -> Result<JobId, AddJobError> {
    let registered = registered::<J>(&queue);
    // A queue with jobs of its own runs them, even after it is merged into another. The store of
    // that queue's runner does not get them.
    let stays = JobSide::of(&queue).is_some_and(|side| side.jobs.is_some());
    let queue = queue.root();
    let settings = settings_of(&queue).filter(|_| !stays);
    match settings.and_then(|settings| Some((settings, settings.store.as_deref()?))) {
        Some((settings, store)) => {
            add_to_store(&queue, settings, store, registered.is_some(), job).await
        }
        None => {
            let may_spill = settings.is_some_and(|settings| settings.spill_store.is_some());
            add_to_queue(&queue, registered, job, location, may_spill)
        }
    }
}

async fn add_to_store<J: Job>(
    queue: &Queue,
    settings: &JobSettings,
    store: &dyn JobStore,
    registered: bool,
    job: J,
) -> Result<JobId, AddJobError> {
    if settings.jobs.is_some() && !registered {
        return Err(AddJobError::not_registered(job));
    }
    let stored = match stored(queue, &job) {
        Ok(stored) => stored,
        Err(error) => return Err(AddJobError::not_serialised(job, error)),
    };
    let id = stored.id();
    match push_within(store, stored, settings.store_timeout).await {
        Ok(()) => Ok(id),
        Err(error) => Err(AddJobError::not_stored(job, error)),
    }
}

/// Adds a job as a task.
fn add_to_queue<J: Job>(
    queue: &Arc<Queue>,
    registered: Option<Arc<Registered<J>>>,
    job: J,
    location: &'static Location<'static>,
    may_spill: bool,
) -> Result<JobId, AddJobError> {
    let Some(registered) = registered else {
        return Err(AddJobError::not_registered(job));
    };
    let kept = match may_spill.then(|| stored(queue, &job)).transpose() {
        Ok(kept) => kept,
        Err(error) => return Err(AddJobError::not_serialised(job, error)),
    };
    let id = kept.as_ref().map_or_else(JobId::random, StoredJob::id);
    let mut task = task_of(job, registered, id);
    if let Some(kept) = kept {
        task.attach(Arc::new(kept));
    }
    match queue.add(task, location) {
        Ok(_) => Ok(id),
        Err(AddTaskError::Full(task) | AddTaskError::FullOfAwaiting(task)) => {
            Err(AddJobError::full(J::NAME, task))
        }
        Err(AddTaskError::Closed(task)) => Err(AddJobError::closed(J::NAME, task)),
    }
}

fn task_of<J: Job>(job: J, registered: Arc<Registered<J>>, id: JobId) -> Task {
    Task::from_work(JobWork::new(job, move |job: J, task| {
        let cx = JobContext::of_task(id, J::NAME, task);
        job.run(registered.state.clone(), cx)
    }))
}

/// Looks in the queue's own jobs if it has some, and otherwise in those of its runner.
fn registered<J: Job>(queue: &Arc<Queue>) -> Option<Arc<Registered<J>>> {
    let own = JobSide::of(queue).and_then(|side| side.jobs.as_ref());
    match own {
        Some(jobs) => jobs.registered(),
        None => settings_of(&queue.root())?.jobs.as_ref()?.registered(),
    }
}

fn settings_of(queue: &Queue) -> Option<&JobSettings> {
    JobSettings::of(queue.owner()?)
}

fn stored<J: Job>(queue: &Queue, job: &J) -> Result<StoredJob, serde_json::Error> {
    Ok(StoredJob::new(job)?.with_origin(queue.request(), trace(queue)))
}

/// Returns the current trace, or else the trace that the request came with.
fn trace(queue: &Queue) -> HashMap<String, String> {
    let current = settings_of(queue).map(JobSettings::trace);
    let current = current.filter(|trace| !trace.is_empty());
    let of_request = || JobSide::of(queue).map(JobSide::trace);
    current.or_else(of_request).unwrap_or_default()
}
