//! The spill: it hands the jobs that a shutdown finds unfinished to the store. Keeps the promise
//! "nothing disappears".
//!
//! 1. A job is claimed first. Its batch can no longer end it, and is woken to drop it.
//! 2. The job is then a [`SpillingJob`], whose end is told once: when the store has answered, or
//!    when the [`SpillingJob`] is dropped.
//! 3. A [`Spill`] holds the jobs. It is a task of the runner's runtime. So it goes on if the caller
//!    of the shutdown has gone, or is itself a claimed task.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{runtime::Handle, time::Instant};

use super::{
    settings::JobSettings,
    spilling_job::SpillingJob,
    store::{JobStore, push},
};
use crate::{
    Runner, ShutdownReport, TaskInfo,
    queue::claim::Claim,
    util::{
        sync::{Mutex, OnceLock, lock},
        timer::within,
    },
};

/// How many jobs are pushed at once.
const PUSHED_AT_ONCE: usize = 16;

/// Jobs on their way to the store.
pub(crate) struct Spill {
    /// `None` once the spill has ended.
    ///
    /// Pushes are polled and dropped under this lock, contained. So a thread that ends the spill
    /// knows that all jobs are reported then. Besides the task that polls, only shutdowns whose
    /// time is over take the lock.
    pushing: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// Set by the first poll.
    begun: OnceLock<()>,
}

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl ShutdownReport {
    /// Returns the jobs that the [`spill_store`](crate::RunnerBuilder::spill_store) took, in the
    /// order added. They ended [`Spilled`](crate::TaskEnd::Spilled), and a worker runs them.
    pub fn spilled(&self) -> &[TaskInfo] {
        &self.unfinished.spilled
    }

    /// Returns why the store did not take the first of the jobs that are
    /// [`unfinished`](Self::unfinished).
    pub fn spill_error(&self) -> Option<&str> {
        self.unfinished.spill_error.as_deref()
    }
}

/// Aborts the unfinished tasks, except for jobs: it hands those to the spill store.
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
            let spill = Arc::new(Spill::new(push_all(store, jobs)));
            settings.note_spill(&spill);
            spill.run_on(runner.owner().runtime(), limit).await;
        }
        // Another shutdown may run a spill too. Its jobs belong in this shutdown's report as well.
        runner.owner().shared.drained().await;
    };
    within(limit, spilled).await;
    // A spill is still unfinished only if the time is over, here or on a runtime that nobody runs.
    settings.end_spills();
}

/// Claims the unfinished tasks. Returns the jobs that the store gets.
fn claim_jobs(runner: &Runner) -> Vec<SpillingJob> {
    let claims = runner.owner().abort_all(SpillingJob::is_for_store);
    let now = Instant::now();
    let spilling = |claim: Claim| SpillingJob::new(runner, claim, now);
    let mut jobs: Vec<_> = claims.into_iter().map(spilling).collect();
    jobs.retain_mut(SpillingJob::may_run);
    // If the time runs out, it does so for jobs that may have done their work.
    jobs.sort_by_key(|job| job.info.running_for().is_some());
    jobs
}

impl Spill {
    fn new(pushing: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            pushing: Mutex::new(Some(Box::pin(pushing))),
            begun: OnceLock::new(),
        }
    }

    /// Runs the spill on `runtime`, or else here.
    async fn run_on(self: Arc<Self>, runtime: Option<Handle>, limit: Duration) {
        if let Some(runtime) = runtime {
            let mut running = runtime.spawn(Arc::clone(&self).run(limit));
            // A runtime that nobody runs gets half of the time. The rest is for running the spill
            // here.
            match within(limit / 2, &mut running).await {
                Some(Ok(())) => return,
                None if self.is_begun() => return drop(running.await),
                _ => {}
            }
        }
        // There is no runtime, it has gone, or nobody runs it.
        self.run(limit).await;
    }

    async fn run(self: Arc<Self>, limit: Duration) {
        let _ = self.begun.set(());
        within(limit, poll_fn(|cx| self.poll(cx))).await;
        self.end();
    }

    fn is_begun(&self) -> bool {
        self.begun.get().is_some()
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pushing = lock(&self.pushing);
        if let Some(future) = pushing.as_mut() {
            ready!(future.as_mut().poll(cx));
        }
        *pushing = None;
        Poll::Ready(())
    }

    /// Ends the jobs that the store has not taken by now aborted.
    pub(crate) fn end(&self) {
        *lock(&self.pushing) = None;
    }
}

/// Pushes all jobs, some of them at once. If this is dropped before, the jobs that the store has
/// not taken end aborted.
async fn push_all(store: Arc<dyn JobStore>, jobs: Vec<SpillingJob>) {
    let store = &*store;
    let push_one = async |mut job: SpillingJob| {
        if let Some(stored) = job.stored.take() {
            let pushed = push(store, stored).await;
            job.answered(pushed);
        }
    };
    stream::iter(jobs)
        .for_each_concurrent(PUSHED_AT_ONCE, push_one)
        .await;
}
