//! [`Jobs`]: the registered jobs and the states that they run with.

use std::{any::Any, collections::BTreeMap, fmt, marker::PhantomData, pin::Pin, sync::Arc};

#[cfg(feature = "tracing")]
use tracing::Span;

#[cfg(feature = "apalis")]
use super::retries::Retries;
use super::{job_report::OnJobEnd, run::Attempt};
#[cfg(feature = "apalis")]
use crate::{Backoff, JobStore};
use crate::{
    Job, JobContext, JobReport, RunJob, RunJobError, StoredJob, TaskResult, observe::metrics,
    util::contain::contain_drop,
};

/// The registered jobs and the states that they run with, for a
/// [`RunnerBuilder`](crate::RunnerBuilder::jobs), a worker, or both.
///
/// `S` is the state of the jobs that are registered next. Registering a job that needs another
/// state does not compile.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tower_background_tasks::{Job, JobContext, Jobs, TaskResult};
/// # #[derive(Clone)] struct Mailer;
/// # #[derive(Clone)] struct Pool;
/// # #[derive(Serialize, Deserialize)] struct WelcomeEmail;
/// # impl Job for WelcomeEmail {
/// #     const NAME: &'static str = "welcome-email";
/// #     type State = Mailer;
/// #     async fn run(self, _: Mailer, _: JobContext) -> TaskResult { Ok(()) }
/// # }
/// # #[derive(Serialize, Deserialize)] struct Reindex;
/// # impl Job for Reindex {
/// #     const NAME: &'static str = "reindex";
/// #     type State = Pool;
/// #     async fn run(self, _: Pool, _: JobContext) -> TaskResult { Ok(()) }
/// # }
/// let jobs = Jobs::new(Mailer)
///     .register::<WelcomeEmail>()
///     .with_state(Pool)
///     .register::<Reindex>();
/// assert_eq!(jobs.names(), ["reindex", "welcome-email"]);
/// ```
///
/// ```compile_fail,E0271
/// # use serde::{Deserialize, Serialize};
/// # use tower_background_tasks::{Job, JobContext, Jobs, TaskResult};
/// # #[derive(Clone)] struct Mailer;
/// # #[derive(Clone)] struct Pool;
/// # #[derive(Serialize, Deserialize)] struct WelcomeEmail;
/// # impl Job for WelcomeEmail {
/// #     const NAME: &'static str = "welcome-email";
/// #     type State = Mailer;
/// #     async fn run(self, _: Mailer, _: JobContext) -> TaskResult { Ok(()) }
/// # }
/// let jobs = Jobs::new(Pool).register::<WelcomeEmail>(); // its state is a `Mailer`
/// ```
///
/// With the feature `apalis`, this is also the service of a worker: see
/// [`ApalisStore`](crate::ApalisStore).
#[derive(Clone)]
#[must_use = "jobs do nothing unless a runner or a worker has them"]
pub struct Jobs<S> {
    registry: Arc<Registry>,
    state: S,
}

/// The registered jobs by name, and the settings of the worker that runs them.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    entries: BTreeMap<&'static str, Arc<dyn Entry>>,
    #[cfg(feature = "tracing")]
    link: Option<Arc<LinkSpan>>,
    on_end: Option<Arc<OnJobEnd>>,
    #[cfg(feature = "apalis")]
    retries: Option<Retries>,
}

#[cfg(feature = "tracing")]
pub(crate) type LinkSpan = dyn Fn(&Span, &StoredJob) + Send + Sync;

pub(crate) type Running = Pin<Box<dyn Future<Output = TaskResult> + Send>>;

/// A registered job whose type is erased.
pub(crate) trait Entry: Send + Sync {
    fn name(&self) -> &'static str;

    /// Parses the payload and starts the job.
    fn start(&self, payload: &str, cx: JobContext) -> Result<Running, RunJobError>;

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// A registered job: its type and its state.
pub(crate) struct Registered<J: Job> {
    pub(crate) state: J::State,
    job: PhantomData<fn() -> J>,
}

impl<S> Jobs<S> {
    /// Makes an empty set. Jobs that are registered in it run with `state`.
    pub fn new(state: S) -> Self {
        metrics::describe_jobs();
        Self {
            registry: Arc::default(),
            state,
        }
    }

    /// Sets the state of jobs that are registered after this call. Jobs that are already
    /// registered keep their state.
    pub fn with_state<T>(self, state: T) -> Jobs<T> {
        Jobs {
            registry: self.registry,
            state,
        }
    }

    /// Registers a job. It runs with the current state.
    ///
    /// # Panics
    ///
    /// If a job of the same name is already registered.
    #[track_caller]
    pub fn register<J: Job<State = S>>(mut self) -> Self
    where
        S: Clone,
    {
        let entry = Registered::<J> {
            state: self.state.clone(),
            job: PhantomData,
        };
        let entries = &mut Arc::make_mut(&mut self.registry).entries;
        let before = entries.insert(J::NAME, Arc::new(entry));
        assert!(
            before.is_none(),
            "two jobs are registered as `{}`: a stored job could be either",
            J::NAME
        );
        self
    }

    /// Sets a function that a worker calls with each job's span before the job runs. The function
    /// can link the span to the trace in which the job was added ([`StoredJob::trace`]). A panic
    /// in the function is contained.
    ///
    /// ```
    /// use tower_background_tasks::Jobs;
    ///
    /// let jobs = Jobs::new(()).link_span(|span, stored| {
    ///     if let Some(parent) = stored.trace().get("traceparent") {
    ///         println!("{:?} follows from {parent}", span.metadata());
    ///     }
    /// });
    /// # drop(jobs);
    /// ```
    ///
    /// With OpenTelemetry, the map is an extractor (the example `traces` has the whole code):
    ///
    /// ```text
    /// .link_span(|span, stored| {
    ///     let request = TraceContextPropagator::new().extract(stored.trace());
    ///     let _ = span.set_parent(request); // or `span.add_link(…)`
    /// })
    /// ```
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn link_span(mut self, link: impl Fn(&Span, &StoredJob) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.registry).link = Some(Arc::new(link));
        self
    }

    /// Sets an observer. A worker with these jobs calls it at the end of each attempt of a stored
    /// job. A panic in the observer is contained. A job that runs as a task is not reported here,
    /// but to [`on_task_end`](crate::RunnerBuilder::on_task_end).
    ///
    /// ```
    /// use tower_background_tasks::{JobEnd, Jobs};
    ///
    /// let jobs = Jobs::new(()).on_job_end(|report| {
    ///     if report.end() == JobEnd::Failed && report.attempt() >= 5 {
    ///         eprintln!("{} {} fails again and again", report.name(), report.id());
    ///     }
    /// });
    /// # drop(jobs);
    /// ```
    pub fn on_job_end(mut self, on_end: impl Fn(&JobReport<'_>) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.registry).on_end = Some(Arc::new(on_end));
        self
    }

    /// Makes an apalis worker postpone a failed job in `store`, for the pause of `backoff`. During
    /// the pause, the job does not occupy the worker. The store keeps the time of the next
    /// attempt, even if the worker dies.
    ///
    /// `store` must be the one that the worker's backend fetches from, and must be able to
    /// [postpone](JobStore::postpone). A job has `max_attempts` attempts: 25, unless
    /// [`prepared`](crate::ApalisStore::prepared) sets another number. After its last attempt, the
    /// job ends with an `AbortError`, and apalis keeps it as dead. A stored value that is not a
    /// job ([`RunJobError::Unreadable`]) has only one attempt. A job that itself returns an
    /// `AbortError` has no further attempt.
    ///
    /// Without this setting, apalis' backends differ: some run a failed job again at once.
    ///
    /// This does not see an attempt that a timeout layer around the worker's service drops. Put a
    /// job's timeout into [`Job::run`]. [`run`](Self::run) and [`run_attempt`](Self::run_attempt)
    /// do not retry: their caller decides.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tower_background_tasks::{Job, JobContext, TaskResult};
    /// use tower_background_tasks::{Backoff, JobStore, Jobs};
    /// # #[derive(Serialize, Deserialize)] struct WelcomeEmail;
    /// # impl Job for WelcomeEmail {
    /// #     const NAME: &'static str = "welcome-email";
    /// #     type State = ();
    /// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
    /// # }
    ///
    /// /// For `WorkerBuilder::new("worker-1").backend(storage).build(jobs)`.
    /// fn jobs(store: impl JobStore) -> Jobs<()> {
    ///     Jobs::new(()).register::<WelcomeEmail>().retry(Backoff::default(), store)
    /// }
    /// ```
    #[cfg(feature = "apalis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "apalis")))]
    pub fn retry(mut self, backoff: Backoff, store: impl JobStore) -> Self {
        let store = Arc::new(store);
        Arc::make_mut(&mut self.registry).retries = Some(Retries { backoff, store });
        self
    }

    #[cfg(feature = "apalis")]
    pub(super) fn retries(&self) -> Option<Retries> {
        self.registry.retries.clone()
    }

    /// Returns the registered jobs' names, in alphabetical order.
    pub fn names(&self) -> Vec<&'static str> {
        self.registry.entries.keys().copied().collect()
    }

    /// Runs a stored job. Call this in a worker's function.
    ///
    /// This counts as the job's first attempt since it was stored. To pass another number, call
    /// [`run_attempt`](Self::run_attempt).
    ///
    /// The job runs in a span `background_task`, which has the job's name, and the method and path
    /// of its request. When the job ends, one event is logged in the span. Its level is error if
    /// the job panicked or cannot run. It is warn if the job failed or the worker dropped it, and
    /// debug if the job completed. The feature `metrics` counts `background_jobs_ended_total` and
    /// records `background_jobs_running_seconds`.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tower_background_tasks::{Job, JobContext, Jobs, RunJobError, StoredJob, TaskResult};
    /// # #[derive(Serialize, Deserialize)] struct Greet { whom: String }
    /// # impl Job for Greet {
    /// #     const NAME: &'static str = "greet";
    /// #     type State = ();
    /// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let stored = StoredJob::new(&Greet { whom: "Ferris".into() })?;
    /// Jobs::new(()).register::<Greet>().run(stored.clone()).await?;
    ///
    /// let error = Jobs::new(()).run(stored).await.unwrap_err();
    /// assert!(matches!(error.downcast_ref(), Some(RunJobError::NotRegistered { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// This returns a [`RunJobError`] when the stored job cannot be read or is not registered, and
    /// when the job panics. It returns the job's own error when the job fails. In each case, the
    /// worker decides whether to try again.
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the job at its current await point.
    pub fn run(&self, stored: StoredJob) -> RunJob {
        self.run_attempt(stored, 1)
    }

    /// Runs a stored job. `attempt` is the number of this attempt since the job was stored; the
    /// first is 1. With apalis, pass `attempt.current()`.
    ///
    /// Otherwise this behaves as [`run`](Self::run) does. It returns the same errors, and is as
    /// cancel safe.
    pub fn run_attempt(&self, stored: StoredJob, attempt: u32) -> RunJob {
        self.run_with(stored, Attempt::Given(attempt))
    }

    pub(crate) fn run_with(&self, stored: StoredJob, attempt: Attempt) -> RunJob {
        RunJob::new(Arc::clone(&self.registry), stored, attempt)
    }

    pub(crate) fn into_registry(self) -> Arc<Registry> {
        self.registry
    }
}

impl Registry {
    /// Drops the values with user code one at a time. If two destructors panicked at once, the
    /// process would abort.
    pub(crate) fn let_go(self) {
        for entry in self.entries.into_values() {
            let _ = contain_drop(entry);
        }
        #[cfg(feature = "tracing")]
        let _ = contain_drop(self.link);
        let _ = contain_drop(self.on_end);
        #[cfg(feature = "apalis")]
        let _ = contain_drop(self.retries);
    }

    pub(crate) fn on_end(&self) -> Option<&OnJobEnd> {
        self.on_end.as_deref()
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Arc<dyn Entry>> {
        self.entries.get(name)
    }

    /// Returns the entry of `J`, or `None` if its name is unknown or belongs to another type.
    pub(crate) fn registered<J: Job>(&self) -> Option<Arc<Registered<J>>> {
        let entry = Arc::clone(self.entry(J::NAME)?);
        entry.into_any().downcast().ok()
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn link(&self) -> Option<&LinkSpan> {
        self.link.as_deref()
    }
}

impl<J: Job> Entry for Registered<J> {
    fn name(&self) -> &'static str {
        J::NAME
    }

    fn start(&self, payload: &str, cx: JobContext) -> Result<Running, RunJobError> {
        let job: J = serde_json::from_str(payload).map_err(|error| RunJobError::Payload {
            name: J::NAME.to_owned(),
            error,
        })?;
        Ok(Box::pin(job.run(self.state.clone(), cx)))
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<S> fmt::Debug for Jobs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("names", &self.names())
            .finish_non_exhaustive()
    }
}
