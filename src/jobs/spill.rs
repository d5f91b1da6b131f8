//! The spill: the jobs that a shutdown finds unfinished, on their way to the store. Keeps the promise "nothing disappears".
//!
//! 1. A job is taken out of its queue first: whoever polls it can no longer end it, and is woken to drop it.
//! 2. It then is a [`Cut`], whose end is reported once: when the store has answered, or when it is dropped.
//! 3. It is named, as spilled or unfinished, before it is reported: whoever waits for the reports finds the name.

use std::{
    collections::VecDeque, fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use tokio::time::Instant;

use super::store::push;
use crate::{
    BoxError, JobStore, Runner, ShutdownReport, StoredJob, TaskEnd, TaskInfo,
    contain::contain,
    current::Current,
    queue::Queue,
    runner::in_order,
    shutdown::elapse,
    span::TaskSpan,
    sync::{Mutex, lock},
};

/// So many jobs are pushed at once.
const LANES: usize = 16;

/// What shutdowns have handed to the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spilled {
    jobs: Vec<TaskInfo>,
    /// Why the store did not take the first that it did not take.
    error: Option<String>,
}

/// A job that was cut off, and has not been reported.
struct Cut {
    runner: Runner,
    queue: Arc<Queue>,
    /// `None` once it is reported.
    current: Option<Current>,
    stored: StoredJob,
    row: TaskInfo,
    /// `Aborted`, unless the store takes it.
    end: TaskEnd,
    /// Why the store did not take it.
    error: Option<String>,
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
            writeln!(f, "{} jobs handed to the store:", self.jobs.len())?;
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
        let Some(store) = settings.spill_store.as_deref() else {
            return;
        };
        let (mut cuts, now) = (VecDeque::new(), Instant::now());
        self.abort_but(|queue, left| {
            let jobs = queue.jobs_of(left).into_iter();
            cuts.extend(jobs.filter_map(|job| Cut::new(self, queue, job, now)));
        });
        cuts.iter_mut().for_each(Cut::stop);
        within(settings.spill_timeout, async {
            push_all(store, cuts).await;
            // Another call of `shutdown` may have more under way, whose names belong in this one's report too.
            self.drained().await;
        })
        .await;
    }
}

/// Pushes all, some at once. Dropped before, those that the store has not taken end aborted.
async fn push_all(store: &dyn JobStore, cuts: VecDeque<Cut>) {
    let waiting = Mutex::new(cuts);
    let next = || lock(&waiting).pop_front();
    let lane = async || {
        while let Some(cut) = next() {
            let pushed = push(store, cut.stored.clone()).await;
            cut.answered(pushed);
        }
    };
    all((0..LANES).map(|_| lane())).await;
}

/// Waits, but no longer than `limit`.
async fn within(limit: Duration, future: impl Future<Output = ()>) {
    let (mut future, mut over) = (pin!(future), pin!(elapse(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => over.as_mut().poll(cx),
    })
    .await;
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

impl Cut {
    fn new(runner: &Runner, queue: &Arc<Queue>, current: Current, now: Instant) -> Option<Self> {
        let stored = current.label.kept.as_deref()?.clone();
        Some(Self {
            runner: runner.clone(),
            queue: Arc::clone(queue),
            stored: stored.with_attempts(current.begun.is_some().into()),
            row: current.info(queue.request(), now),
            current: Some(current),
            end: TaskEnd::Aborted,
            error: None,
        })
    }

    /// Wakes whoever polls the job, to drop it.
    fn stop(&mut self) {
        let waker = self
            .current
            .as_mut()
            .and_then(|current| current.waker.take());
        if let Some(waker) = waker {
            let _ = contain(|| waker.wake()); // code of the runtime's
        }
    }

    fn answered(mut self, pushed: Result<(), BoxError>) {
        match pushed {
            Ok(()) => self.end = TaskEnd::Spilled,
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    fn name(&self, spilled: &mut Spilled) {
        if matches!(self.end, TaskEnd::Spilled) {
            spilled.jobs.push(self.row.clone());
        } else {
            self.runner.note_unfinished(vec![self.row.clone()]);
            let error = self.error.clone();
            spilled
                .error
                .get_or_insert_with(|| error.unwrap_or_else(|| NO_ANSWER.into()));
        }
    }
}

const NO_ANSWER: &str =
    "it had not answered when the shutdown's time was over; see `spill_timeout`";

impl Drop for Cut {
    fn drop(&mut self) {
        let settings = self.runner.job_settings();
        settings.note_spilled(|spilled| self.name(spilled));
        if let Some(current) = self.current.take() {
            self.queue.report(current, &self.end, TaskSpan::default());
        }
    }
}
