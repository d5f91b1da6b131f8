//! What a [`RunnerBuilder`] knows of jobs.

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

/// How large a stored job's payload may be by default, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Kept in the extensions of a runner's settings.
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
    /// The spills that are running. Weak, as each keeps the runner alive.
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
    /// `None` for a runner whose builder knows nothing of jobs.
    pub(super) fn of(owner: &Owner) -> Option<&Self> {
        owner.shared.settings.extensions.get()
    }

    pub(super) fn max_bytes(owner: Option<&Arc<Owner>>) -> usize {
        let settings = owner.and_then(|owner| Self::of(owner));
        settings.map_or(MAX_BYTES, |settings| settings.max_bytes)
    }

    /// Returns the current trace, from the user's closure.
    pub(super) fn trace(&self) -> HashMap<String, String> {
        let mut trace = HashMap::new();
        if let Some(inject) = &self.inject {
            let _ = contain(|| inject(&mut trace));
        }
        // OpenTelemetry's propagator writes an empty `tracestate` where there is none.
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

/// Drops one value at a time: two destructors that panic at once would abort the process.
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

    /// Has requests' queues note the trace that the request came with, as a job may go to a store.
    fn note_traces(&mut self) {
        if !mem::replace(&mut self.job_settings().notes_traces, true) {
            self.settings.on_request.push(Box::new(JobSide::note_trace));
        }
    }
}

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl RunnerBuilder {
    /// Sets the jobs that can be added, and the states they run with.
    ///
    /// Without a [`job_store`](Self::job_store), a job is a task of its request, named by
    /// [`Job::NAME`](crate::Job::NAME). It runs here after the response, once, under this runner's
    /// limits, with every promise of any other task.
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
    /// [`add_job`](crate::BackgroundTasks::add_job) then resolves when the store has the job. The
    /// job runs at least once, even if this process dies at that moment, and whatever becomes of
    /// the response. None of this runner's settings holds for it. It is in no count, and a shutdown
    /// does not wait for it.
    ///
    /// With [`jobs`](Self::jobs), the runner takes only jobs that are registered there, though they
    /// do not run here. Without, it takes every job.
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

    /// Sets how long [`add_job`](crate::BackgroundTasks::add_job) waits for the
    /// [`job_store`](Self::job_store) to answer; 5 seconds by default. After that the handler gets
    /// the job back, with an error.
    ///
    /// # Panics
    ///
    /// If `timeout` is zero.
    pub fn job_store_timeout(mut self, timeout: Duration) -> Self {
        self.job_settings().store_timeout = positive("job_store_timeout", timeout);
        self
    }

    /// Sets how large the payload of a job may be that goes to a store, in bytes of JSON; 1 MiB by
    /// default. A larger one is refused
    /// ([`AddJobErrorKind::TooLarge`](crate::AddJobErrorKind::TooLarge)): keep its data elsewhere,
    /// and their key in the job.
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

    /// Sets the store to which a shutdown hands the jobs that have not ended, so that a deploy
    /// loses none.
    ///
    /// Jobs run here, as tasks of their requests. When the grace period of
    /// [`Runner::shutdown`](crate::Runner::shutdown) ends, unfinished jobs are stopped like any
    /// other task. Each is then pushed into this store, for a worker to run. This includes jobs
    /// that run, that wait behind others, for a place under the limits, or for their response to
    /// end. Jobs that have not begun are pushed first.
    ///
    /// - A job that the store takes ends [`Spilled`](crate::TaskEnd::Spilled), and is in
    ///   [`ShutdownReport::spilled`](crate::ShutdownReport::spilled).
    /// - A job that the store does not take ends [`Aborted`](crate::TaskEnd::Aborted), and is named
    ///   as unfinished. If the store did not answer in time, it may have the job all the same.
    /// - A job that would not run now, because of its response's end or an earlier task's failure,
    ///   is not pushed. It ends as it would have ended here, such as
    ///   [`Skipped`](crate::TaskEnd::Skipped).
    /// - A job that is held ([`BackgroundTasks::hold`](crate::BackgroundTasks::hold)) is not pushed
    ///   either. It ends aborted, and is named.
    ///
    /// A spilled job runs at least once: a job that was running may have done its work, or a part
    /// of it. It runs whether or not its response ever ends, and beside the other jobs of its
    /// request. A job in the middle of a poll goes on to its next await point here, perhaps while a
    /// worker runs it.
    ///
    /// Only jobs can be handed over, and other tasks are aborted. Jobs are aborted too if there is
    /// no shutdown: at a crash, a `kill -9`, the end of the runtime, or a
    /// [`cancel`](crate::Runner::cancel). To survive those, use a [`job_store`](Self::job_store).
    /// Jobs that were added to a stand-alone queue
    /// ([`BackgroundTasks::with_jobs`](crate::BackgroundTasks::with_jobs)) are tasks like others.
    ///
    /// With this setting each job is serialised when it is added, as it cannot be once it runs.
    /// Without it, none is.
    pub fn spill_store(mut self, store: impl JobStore) -> Self {
        self.job_settings().spill_store = Some(Arc::new(store));
        self.note_traces();
        let on_shutdown = OnShutdown(|runner: Runner| Box::pin(spill::spill_jobs(runner)));
        self.settings.extensions.insert(on_shutdown);
        self
    }

    /// Sets how long a shutdown goes on after its grace period to hand all jobs to the
    /// [`spill_store`](Self::spill_store); 3 seconds by default. Jobs that the store has not taken
    /// by then are aborted. So a shutdown takes up to the sum of its grace period and this time.
    ///
    /// The store is asked for 16 jobs at once. A push that has not been answered after 250 ms goes
    /// on, and gives its place to the next. None begins after this time. One that blocks its thread
    /// may outlast it.
    ///
    /// # Panics
    ///
    /// If `timeout` is zero.
    pub fn spill_timeout(mut self, timeout: Duration) -> Self {
        self.job_settings().spill_timeout = positive("spill_timeout", timeout);
        self
    }

    /// Sets a function that writes down the current trace. It is called when a job is added that
    /// may go to a store. It writes the headers of W3C's Trace Context, or what the worker's
    /// [`Jobs::link_span`](crate::Jobs::link_span) can read.
    ///
    /// If this is not set, or writes nothing, the request's own `traceparent` and `tracestate` are
    /// passed on as they came. A `traceparent` of more than 256 bytes, a `tracestate` of more than
    /// 512, or one that is empty or no text, is dropped. Without its `traceparent`, a `tracestate` is
    /// dropped too.
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
    /// With OpenTelemetry, for which the map is an injector (the example `traces` has it whole):
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
