//! The spill: the jobs that a shutdown finds unfinished, on their way to the store. Keeps the promise "nothing disappears".
//!
//! 1. A job is taken out of its queue first: whoever polls it can no longer end it, and is woken to drop it.
//! 2. It then is a [`Cut`], whose end is reported once: when the store has answered, or when it is dropped.
//! 3. It is named, as spilled or unfinished, before it is reported: whoever waits for the reports finds the name.
//! 4. The cuts are with a [`Spill`], which is a task of the runner's runtime: it goes on though whoever called the shutdown has gone,
//!    or is itself one of the tasks that were cut off.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{cut::Cut, store::push};
use crate::{
    JobStore, Runner, ShutdownReport, TaskEnd, TaskInfo,
    runner::in_order,
    runner::shutdown::{counted, elapse},
    util::contain::contain_drop,
    util::sync::{Mutex, OnceLock, lock},
};

/// So many jobs are pushed at once.
const LANES: usize = 16;

/// What shutdowns have handed to the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spilled {
    pub(super) jobs: Vec<TaskInfo>,
    /// Why the store did not take the first that it did not take.
    pub(super) error: Option<String>,
}

/// Jobs on their way to the store.
pub(crate) struct Spill {
    /// `None` once it has ended.
    ///
    /// Pushes are polled and dropped under this lock, contained as they are: whoever ends the spill knows that all is reported then. But for
    /// the one who polls, only those take it whose time is over.
    pushing: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// Set when it is first polled.
    begun: OnceLock<()>,
}

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl ShutdownReport {
    /// The jobs that were handed to the [`spill_store`](crate::RunnerBuilder::spill_store), those added first in front: they ended
    /// [`Spilled`](TaskEnd::Spilled), and a worker runs them.
    pub fn spilled(&self) -> &[TaskInfo] {
        &self.spilled.jobs
    }

    /// Why the store did not take jobs that are [`unfinished`](Self::unfinished), as of the first of them.
    pub fn spill_error(&self) -> Option<&str> {
        self.spilled.error.as_deref()
    }
}

impl Spilled {
    pub(crate) fn in_order(&self) -> Self {
        Self {
            jobs: in_order(self.jobs.clone()),
            error: self.error.clone(),
        }
    }

    /// Lines for a [`ShutdownReport`].
    pub(crate) fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.jobs.is_empty() {
            let jobs = counted(self.jobs.len(), "job");
            writeln!(f, "{jobs} handed to the store:")?;
        }
        for job in &self.jobs {
            writeln!(f, "  {job}")?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "the store did not take all jobs: {error}")?;
        }
        Ok(())
    }
}

impl Runner {
    /// Aborts what is left, but jobs: those it hands to the store that is set for it, if any.
    pub(crate) async fn spill_jobs(&self) {
        let settings = self.job_settings();
        if settings.spill_store.is_none() {
            return;
        }
        let cuts = self.cut_jobs();
        let spilled = async {
            if !cuts.is_empty() {
                self.spill(cuts).await;
            }
            // Another call of `shutdown` may have more under way, whose names belong in this one's report too.
            self.drained().await;
        };
        within(settings.spill_timeout, spilled).await;
        // Nothing is left unless time is over, here or in a runtime that nobody drives.
        settings.end_spills();
    }

    /// Cuts off what is left. Of the jobs, those come back that are to be spilled.
    fn cut_jobs(&self) -> VecDeque<Cut> {
        let (mut cuts, mut tasks, now) = (Vec::new(), Vec::new(), Instant::now());
        self.abort_but(|queue, left| {
            for (job, task) in queue.jobs_of(left) {
                tasks.extend(task);
                cuts.extend(Cut::new(self, queue, job, now));
            }
        });
        for task in tasks {
            let _ = contain_drop(task);
        }
        cuts.iter_mut().for_each(Cut::stop);
        cuts.iter_mut().for_each(Cut::judge);
        cuts.retain(|cut| matches!(cut.end, TaskEnd::Aborted));
        // If time runs out, then for those that may have done their work.
        cuts.sort_by_key(|cut| cut.row.running_for.is_some());
        cuts.into()
    }

    async fn spill(&self, cuts: VecDeque<Cut>) {
        let (runner, limit) = (self.clone(), self.job_settings().spill_timeout);
        let spill = Arc::new(Spill::new(async move {
            if let Some(store) = runner.job_settings().spill_store.as_deref() {
                push_all(store, cuts).await;
            }
        }));
        self.job_settings().note_spill(&spill);
        if let Some(runtime) = self.runtime() {
            let mut running = runtime.spawn(Arc::clone(&spill).run(limit));
            match within(limit / 2, &mut running).await {
                Some(Ok(())) => return,
                None if spill.is_begun() => return drop(running.await),
                _ => {}
            }
        }
        spill.run(limit).await; // there is no runtime, it has gone, or nobody drives it
    }
}

impl Spill {
    fn new(pushing: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            pushing: Mutex::new(Some(Box::pin(pushing))),
            begun: OnceLock::new(),
        }
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

    /// What the store has not taken by now ends aborted.
    pub(crate) fn end(&self) {
        *lock(&self.pushing) = None;
    }
}

/// Pushes all, some at once. Dropped before, those that the store has not taken end aborted.
async fn push_all(store: &dyn JobStore, cuts: VecDeque<Cut>) {
    let waiting = Mutex::new(cuts);
    let next = || lock(&waiting).pop_front();
    let lane = async || {
        while let Some(mut cut) = next() {
            let Some(stored) = cut.stored.take() else {
                continue;
            };
            let pushed = push(store, stored).await;
            cut.answered(pushed);
        }
    };
    all((0..LANES).map(|_| lane())).await;
}

/// Waits, but no longer than `limit`: `None` is time that is over.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut over) = (pin!(future), pin!(elapse(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => over.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Polls each until all are done.
async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut left: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|cx| {
        left.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if left.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
