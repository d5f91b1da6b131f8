//! [`JobSettings`]: the job settings of a [`RunnerBuilder`].

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    job_side::JobSide,
    registered::Registry,
    spill::{self, Spill},
    store::JobStore,
};
use crate::{
    Jobs, Runner, RunnerBuilder,
    queue::owner::Owner,
    runner::shutdown::OnShutdown,
    util::{
        contain::{contain, contain_drop},
        sync::{Mutex, lock},
    },
};

type Inject = dyn Fn(&mut HashMap<String, String>) + Send + Sync;

/// The default limit for a stored job's payload, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// A value in the extensions of a runner's settings.
#[derive(Clone)]
pub(crate) struct JobSettings {
    pub(super) jobs: Option<Arc<Registry>>,
    pub(super) store: Option<Arc<dyn JobStore>>,
    pub(super) store_timeout: Duration,
    pub(super) spill_store: Option<Arc<dyn JobStore>>,
    pub(super) spill_timeout: Duration,
    max_bytes: usize,
    notes_traces: bool,
    inject: Option<Arc<Inject>>,
    /// The spills that have begun. Weak, because a spill keeps its runner alive.
    spills: Arc<Mutex<Vec<Weak<Spill>>>>,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            jobs: None,
            store: None,
            store_timeout: Duration::from_secs(5),
            spill_store: None,
            spill_timeout: Duration::from_secs(3),
            max_bytes: MAX_BYTES,
            notes_traces: false,
            inject: None,
            spills: Arc::default(),
        }
    }
}

impl JobSettings {
    /// Returns `None` if the runner's builder has no job settings.
    pub(super) fn of(owner: &Owner) -> Option<&Self> {
        owner.shared.settings.extensions.get()
    }

    pub(super) fn max_bytes(owner: Option<&Arc<Owner>>) -> usize {
        let settings = owner.and_then(|owner| Self::of(owner));
        settings.map_or(MAX_BYTES, |settings| settings.max_bytes)
    }

    /// Returns the trace that the user's function writes, which may be empty.
    pub(super) fn trace(&self) -> HashMap<String, String> {
        let mut trace = HashMap::new();
        if let Some(inject) = &self.inject {
            let _ = contain(|| inject(&mut trace));
        }
        // OpenTelemetry's propagator writes an empty `tracestate` if there is none.
        trace.retain(|_, value| !value.is_empty());
        trace
    }

    pub(super) fn note_spill(&self, spill: &Arc<Spill>) {
        lock(&self.spills).push(Arc::downgrade(spill));
    }

    pub(super) fn end_spills(&self) {
        let spills = lock(&self.spills).clone();
        for spill in spills.iter().filter_map(Weak::upgrade) {
            spill.end();
        }
    }
}

/// Drops the values one at a time. If two destructors panicked at once, the process would abort.
impl Drop for JobSettings {
    fn drop(&mut self) {
        if let Some(jobs) = self.jobs.take().and_then(Arc::into_inner) {
            jobs.let_go();
        }
        let _ = contain_drop(self.store.take());
        let _ = contain_drop(self.spill_store.take());
        let _ = contain_drop(self.inject.take());
    }
}

impl RunnerBuilder {
    fn job_settings(&mut self) -> &mut JobSettings {
        self.settings.extensions.get_or_insert_default()
    }

    /// Makes each request's queue keep the request's trace, for jobs that go to a store.
    fn note_traces(&mut self) {
        if !mem::replace(&mut self.job_settings().notes_traces, true) {
            self.settings.on_request.push(Box::new(JobSide::note_trace));
        }
    }
}

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl RunnerBuilder {
    /// Sets the jobs that can be added, and the states that they run with.
    ///
    /// Without a [`job_store`](Self::job_store), a job is a task of its request, named by
    /// [`Job::NAME`](crate::Job::NAME). It runs here once, after the response, under this runner's
    /// limits. All promises for tasks hold for it.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tower_background_tasks::{Job, JobContext, Jobs, Runner, TaskResult};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct WelcomeEmail { to: String }
    /// # impl Job for WelcomeEmail {
    /// #     const NAME: &'static str = "welcome-email";
    /// #     type State = ();
    /// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = Jobs::new(()).register::<WelcomeEmail>();
    /// let runner = Runner::builder().jobs(jobs).build();
    /// runner.add_job(WelcomeEmail { to: "ferris@example.org".into() }).await?;
    /// runner.idle().await;
    /// assert_eq!(runner.stats().completed, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn jobs<S>(mut self, jobs: Jobs<S>) -> Self {
        self.job_settings().jobs = Some(jobs.into_registry());
        self.note_traces();
        self
    }

    /// Sets the store that keeps jobs until a worker runs them, on this machine or another.
    ///
    /// [`add_job`](crate::BackgroundTasks::add_job) then resolves when the store has the job. From
    /// then on, the job runs at least once, even if this process dies or the response fails. The
    /// runner's settings for tasks do not apply to the job. The runner does not count it, and a
    /// shutdown does not wait for it.
    ///
    /// With [`jobs`](Self::jobs), the runner accepts only jobs that are registered there, though
    /// they do not run here. Without it, the runner accepts every job.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use std::sync::{Arc, Mutex};
    /// # use tower_background_tasks::{Job, JobContext, Jobs, JobStore, PushFuture, Runner, StoredJob, TaskResult};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct WelcomeEmail { to: String }
    /// # impl Job for WelcomeEmail {
    /// #     const NAME: &'static str = "welcome-email";
    /// #     type State = ();
    /// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
    /// # }
    /// # #[derive(Default)]
    /// # struct InMemory(Mutex<Vec<StoredJob>>);
    /// # impl JobStore for InMemory {
    /// #     fn push(&self, job: StoredJob) -> PushFuture<'_> {
    /// #         Box::pin(async move { self.0.lock().unwrap().push(job); Ok(()) })
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Arc::new(InMemory::default());
    /// let jobs = Jobs::new(()).register::<WelcomeEmail>();
    /// let runner = Runner::builder().jobs(jobs.clone()).job_store(store.clone()).build();
    /// runner.add_job(WelcomeEmail { to: "ferris@example.org".into() }).await?;
    ///
    /// // On the worker:
    /// let stored = store.0.lock().unwrap().pop().unwrap();
    /// jobs.run(stored).await.unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn job_store(mut self, store: impl JobStore) -> Self {
        self.job_settings().store = Some(Arc::new(store));
        self.note_traces();
        self
    }

    /// Sets how long [`add_job`](crate::BackgroundTasks::add_job) waits for the answer of the
    /// [`job_store`](Self::job_store): by default 5 seconds. After that, the caller gets an error
    /// that holds the job.
    ///
    /// # Panics
    ///
    /// If `timeout` is zero.
    pub fn job_store_timeout(mut self, timeout: Duration) -> Self {
        self.job_settings().store_timeout = positive("job_store_timeout", timeout);
        self
    }

    /// Limits the payload of a job that may go to a store, in bytes of JSON: by default 1 MiB.
    ///
    /// The runner refuses a job with a larger payload
    /// ([`AddJobErrorKind::TooLarge`](crate::AddJobErrorKind::TooLarge)). Keep such data
    /// elsewhere, and put a key to it into the job.
    ///
    /// # Panics
    ///
    /// If `bytes` is zero.
    pub fn max_job_bytes(mut self, bytes: usize) -> Self {
        assert!(
            bytes > 0,
            "`max_job_bytes` must not be zero: no job has so few"
        );
        self.job_settings().max_bytes = bytes;
        self
    }

    /// Sets the store to which a shutdown hands unfinished jobs, so that a deploy loses none.
    ///
    /// Jobs run here, as tasks of their requests. When the grace period of
    /// [`Runner::shutdown`](crate::Runner::shutdown) ends, the shutdown stops unfinished jobs like
    /// any other task. It then pushes each into this store, for a worker to run. It first pushes
    /// the jobs that wait: for earlier tasks, for a permit of the limits, or for their response to
    /// end. Then it pushes the jobs that were running.
    ///
    /// - A job that the store takes ends [`Spilled`](crate::TaskEnd::Spilled), and is in
    ///   [`ShutdownReport::spilled`](crate::ShutdownReport::spilled).
    /// - A job that the store does not take ends [`Aborted`](crate::TaskEnd::Aborted). The report
    ///   names it as unfinished. If the store did not answer in time, it may still have the job.
    /// - A job is not pushed if its response's end or an earlier task's failure prevents it from
    ///   running. It ends as it would without a shutdown, for example
    ///   [`Skipped`](crate::TaskEnd::Skipped).
    /// - A [held](crate::BackgroundTasks::hold) job is not pushed either. It ends aborted, and the
    ///   report names it.
    ///
    /// A spilled job runs at least once: if it was running, it may have done some or all of its
    /// work. It does not wait for its response to end, or for other jobs of its request. A job
    /// that is being polled continues to its next await point, perhaps while a worker runs it.
    ///
    /// The shutdown aborts tasks that are not jobs, and jobs of a stand-alone queue
    /// ([`BackgroundTasks::with_jobs`](crate::BackgroundTasks::with_jobs)). Only a shutdown hands
    /// jobs over: a crash, a `kill -9`, the end of the runtime, or a
    /// [`cancel`](crate::Runner::cancel) does not. Use a [`job_store`](Self::job_store) to keep
    /// jobs through those.
    ///
    /// With this setting, each job is serialised when it is added, because a running job cannot be
    /// serialised. Without a store, no job is serialised.
    pub fn spill_store(mut self, store: impl JobStore) -> Self {
        self.job_settings().spill_store = Some(Arc::new(store));
        self.note_traces();
        let on_shutdown = OnShutdown(|runner: Runner| Box::pin(spill::spill_jobs(runner)));
        self.settings.extensions.insert(on_shutdown);
        self
    }

    /// Sets how long a shutdown may take, after its grace period, to hand all jobs to the
    /// [`spill_store`](Self::spill_store): by default 3 seconds. Jobs that the store has not taken
    /// by then are aborted. So a shutdown takes up to the sum of its grace period and this time.
    ///
    /// The runner pushes up to 16 jobs at once. A push without an answer after 250 ms continues,
    /// but no longer counts towards the 16. No push begins after this timeout. A push that blocks
    /// its thread may outlast the timeout.
    ///
    /// # Panics
    ///
    /// If `timeout` is zero.
    pub fn spill_timeout(mut self, timeout: Duration) -> Self {
        self.job_settings().spill_timeout = positive("spill_timeout", timeout);
        self
    }

    /// Sets a function that writes the current trace into a map. The runner calls it when a job
    /// that may go to a store is added. The function writes the headers of W3C Trace Context, or
    /// any entries that the worker's [`Jobs::link_span`](crate::Jobs::link_span) can read.
    ///
    /// Without this function, or if it writes nothing, the job gets the `traceparent` and
    /// `tracestate` of its request. This needs a runner with jobs or a store for jobs. The runner
    /// ignores a header that is empty or not text, a `traceparent` over 256 bytes and a
    /// `tracestate` over 512. It also ignores a `tracestate` without a `traceparent`.
    ///
    /// ```
    /// use tower_background_tasks::Runner;
    /// # fn current_traceparent() -> String { "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into() }
    ///
    /// let runner = Runner::builder()
    ///     .job_trace(|trace| {
    ///         trace.insert("traceparent".into(), current_traceparent());
    ///     })
    ///     .build();
    /// ```
    ///
    /// With OpenTelemetry, the map is an injector (the example `traces` has the whole code):
    ///
    /// ```text
    /// .job_trace(|trace| {
    ///     let context = tracing::Span::current().context();
    ///     TraceContextPropagator::new().inject_context(&context, trace);
    /// })
    /// ```
    pub fn job_trace(
        mut self,
        inject: impl Fn(&mut HashMap<String, String>) + Send + Sync + 'static,
    ) -> Self {
        self.job_settings().inject = Some(Arc::new(inject));
        self
    }
}

#[track_caller]
fn positive(setting: &str, timeout: Duration) -> Duration {
    assert!(
        !timeout.is_zero(),
        "`{setting}` must not be zero: no store could answer"
    );
    timeout
}
