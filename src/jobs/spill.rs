//! [`Spill`]: hands the unfinished jobs of a shutdown to the store. Keeps the promise "nothing
//! disappears".
//!
//! 1. The shutdown first claims a job. The job's batch can then no longer report its end. If the
//!    job is running, its batch is woken and drops it.
//! 2. A claimed job becomes a [`SpillingJob`], whose end is reported once: when the store has
//!    answered, or when the [`SpillingJob`] is dropped.
//! 3. A [`Spill`] holds each job until the store has answered. It runs on the runner's runtime. So
//!    it continues if the shutdown's future is dropped, or if its caller is itself a claimed task.
//! 4. No thread polls a push under a lock. So a store that blocks its thread blocks no other.

use std::{
    mem,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    settings::JobSettings,
    spilling_job::SpillingJob,
    store::{JobStore, push, text_of},
    stored::StoredJob,
};
use crate::{
    Runner, ShutdownReport, TaskInfo,
    queue::claim::Claim,
    util::{
        sync::{Mutex, OnceLock, lock},
        timer::within,
    },
};

/// How many pushes run at once, not counting slow ones.
const PUSHED_AT_ONCE: usize = 16;

/// A push that takes longer is slow. It continues, and gives its place to the next push.
const SLOW: Duration = Duration::from_millis(250);

/// Jobs on their way to the store.
pub(crate) struct Spill {
    store: Arc<dyn JobStore>,
    jobs: Mutex<Jobs>,
    /// Set when a run begins.
    begun: OnceLock<()>,
}

struct Jobs {
    /// A job is `None` once the store has answered. The list is empty once the spill has ended.
    unanswered: Vec<Option<SpillingJob>>,
    /// The index of the next job to push.
    next: usize,
}

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl ShutdownReport {
    /// Returns the jobs that the [`spill_store`](crate::RunnerBuilder::spill_store) took, in the
    /// order in which they were added. They ended [`Spilled`](crate::TaskEnd::Spilled), and a
    /// worker runs them.
    pub fn spilled(&self) -> &[TaskInfo] {
        &self.unfinished.spilled
    }

    /// Returns why the store did not take a job: the first reason if there are several. Such jobs
    /// are [`unfinished`](Self::unfinished). Returns `None` if the store took each job that was
    /// pushed.
    pub fn spill_error(&self) -> Option<&str> {
        self.unfinished.spill_error.as_deref()
    }
}

/// Hands the unfinished jobs to the spill store, and aborts all other unfinished tasks.
pub(super) async fn spill_jobs(runner: Runner) {
    let Some(settings) = JobSettings::of(runner.owner()) else {
        return;
    };
    let (Some(store), limit) = (settings.spill_store.clone(), settings.spill_timeout) else {
        return;
    };
    let jobs = claim_jobs(&runner);
    let spilled = async {
        if !jobs.is_empty() {
            let spill = Arc::new(Spill::new(store, jobs));
            settings.note_spill(&spill);
            spill.run_on(runner.owner().runtime(), limit).await;
        }
        // An overlapping shutdown may run a spill too. Its jobs belong in this report as well.
        runner.owner().shared.ended().await;
    };
    within(limit, spilled).await;
    // A spill is unfinished here only if its time is over. It cannot end itself if no thread runs
    // its runtime.
    settings.end_spills();
}

/// Claims the unfinished tasks. Returns the jobs to push, and ends the other tasks.
fn claim_jobs(runner: &Runner) -> Vec<SpillingJob> {
    let claims = runner.owner().abort_all(SpillingJob::is_for_store);
    let now = tokio::time::Instant::now();
    let spilling = |claim: Claim| SpillingJob::new(runner, claim, now);
    let mut jobs: Vec<_> = claims.into_iter().map(spilling).collect();
    jobs.retain_mut(SpillingJob::may_run);
    // Jobs that have begun come last: if the time runs out before their push, they may already
    // have done their work.
    jobs.sort_by_key(|job| job.info.running_for().is_some());
    jobs
}

impl Spill {
    fn new(store: Arc<dyn JobStore>, jobs: Vec<SpillingJob>) -> Self {
        let unanswered = jobs.into_iter().map(Some).collect();
        Self {
            store,
            jobs: Mutex::new(Jobs {
                unanswered,
                next: 0,
            }),
            begun: OnceLock::new(),
        }
    }

    /// Runs the spill on `runtime`, or else in the caller's task.
    async fn run_on(self: Arc<Self>, runtime: Option<Handle>, limit: Duration) {
        if let Some(runtime) = runtime {
            let mut running = runtime.spawn(Arc::clone(&self).run(limit));
            // No thread may be running that runtime. So it gets half of the time to begin. In the
            // other half, the caller's task runs the spill.
            match within(limit / 2, &mut running).await {
                Some(Ok(())) => return,
                None if self.is_begun() => return drop(running.await),
                _ => {}
            }
        }
        // There is no runtime, it has shut down, or no thread runs it.
        self.run(limit).await;
    }

    async fn run(self: Arc<Self>, limit: Duration) {
        let _ = self.begun.set(());
        // The runtime may start its run after the caller's task has started another. If
        // `push_all` returns in time, jobs that are still unanswered belong to the other run.
        if within(limit, self.push_all(limit)).await.is_none() {
            self.end();
        }
    }

    fn is_begun(&self) -> bool {
        self.begun.get().is_some()
    }

    /// Pushes the jobs that no other run has taken, several at once.
    async fn push_all(&self, limit: Duration) {
        let (begun, places) = (Instant::now(), Semaphore::new(PUSHED_AT_ONCE));
        let push_one = async |place| {
            // An earlier push may have blocked this thread until the time was over.
            if begun.elapsed() >= limit {
                return;
            }
            let Some((number, job)) = self.next() else {
                return;
            };
            let mut pushing = pin!(push(&*self.store, job));
            let pushed = match within(SLOW, pushing.as_mut()).await {
                Some(pushed) => pushed,
                None => {
                    drop(place);
                    pushing.await
                }
            };
            self.answered(number, pushed.map_err(text_of));
        };
        let many = lock(&self.jobs).unanswered.len();
        stream::iter(0..many)
            .then(|_| places.acquire())
            .for_each_concurrent(None, push_one)
            .await;
    }

    /// Takes the next job to push. Returns it with its index.
    fn next(&self) -> Option<(usize, StoredJob)> {
        let mut jobs = lock(&self.jobs);
        loop {
            let number = jobs.next;
            let job = jobs.unanswered.get_mut(number)?;
            let stored = job.as_mut().and_then(|job| job.stored.take());
            jobs.next += 1;
            if let Some(stored) = stored {
                return Some((number, stored));
            }
        }
    }

    fn answered(&self, number: usize, pushed: Result<(), String>) {
        let mut jobs = lock(&self.jobs);
        let job = jobs.unanswered.get_mut(number).and_then(Option::take);
        // The report lists the job before the lock is released. So a thread that ends the spill
        // finds the job in `unanswered` or in the report.
        let job = job.map(|job| job.answered(pushed));
        drop(jobs);
        drop(job); // tells its end
    }

    /// Drops the jobs that the store has not answered yet. They end aborted.
    pub(crate) fn end(&self) {
        let unanswered = mem::take(&mut lock(&self.jobs).unanswered);
        drop(unanswered);
    }
}
