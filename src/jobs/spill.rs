//! The spill: the jobs that a shutdown finds unfinished, on their way to the store. Keeps the promise "nothing disappears".
//!
//! 1. A job is taken out of its queue first: whoever polls it can no longer end it, and is woken to drop it.
//! 2. It then is a [`Cut`], whose end is reported once: when the store has answered, or when it is dropped.
//! 3. It is named, as spilled or unfinished, before it is reported: whoever waits for the reports finds the name.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::store::{PushError, push_within};
use crate::{
    JobStore, Runner, ShutdownReport, StoredJob, TaskEnd, TaskInfo,
    contain::contain,
    current::Current,
    queue::Queue,
    runner::in_order,
    shutdown::elapse,
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
    current: Current,
    stored: StoredJob,
    row: TaskInfo,
    /// How it ends unless the store takes it.
    end: TaskEnd,
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
        push_all(self, store, cuts, settings.spill_timeout).await;
        // Another call of `shutdown` may have more under way, whose names belong in this one's report too.
        within(settings.spill_timeout, self.drained()).await;
    }
}

/// Pushes all, some at once, and drops what is left when the time is over.
async fn push_all(runner: &Runner, store: &dyn JobStore, cuts: VecDeque<Cut>, limit: Duration) {
    let waiting = Mutex::new(cuts);
    let next = || lock(&waiting).pop_front();
    let lane = async || {
        while let Some(cut) = next() {
            let pushed = push_within(store, cut.stored.clone(), limit).await;
            cut.answered(pushed);
        }
    };
    let lanes: Vec<_> = (0..LANES).map(|_| lane()).collect();
    if !within(limit, all(lanes)).await {
        note_error(runner, format!("no answer within {limit:?}"));
    }
    // What is left in `waiting` ends aborted here; what was on its way has.
}

/// False when the time was over first.
async fn within(limit: Duration, future: impl Future<Output = ()>) -> bool {
    let (mut future, mut over) = (pin!(future), pin!(elapse(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => over.as_mut().poll(cx).map(|()| false),
    })
    .await
}

/// Polls each until all are done.
async fn all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures
        .into_iter()
        .map(|future| Some(Box::pin(future)))
        .collect();
    let poll_one = |slot: &mut Option<Pin<Box<F>>>, cx: &mut Context<'_>| {
        if slot
            .as_mut()
            .is_some_and(|future| future.as_mut().poll(cx).is_ready())
        {
            *slot = None;
        }
        slot.is_none()
    };
    poll_fn(|cx| {
        let done = futures.iter_mut().map(|slot| poll_one(slot, cx));
        if done.filter(|done| !done).count() == 0 {
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
            current,
            end: TaskEnd::Aborted,
        })
    }

    /// Wakes whoever polls the job, to drop it.
    fn stop(&mut self) {
        if let Some(waker) = self.current.waker.take() {
            let _ = contain(|| waker.wake()); // code of the runtime's
        }
    }

    fn answered(mut self, pushed: Result<(), PushError>) {
        match pushed {
            Ok(()) => self.end = TaskEnd::Spilled,
            Err(error) => note_error(&self.runner, error.to_string()),
        }
    }
}

fn note_error(runner: &Runner, error: String) {
    let settings = runner.job_settings();
    settings.note_spilled(|spilled| {
        spilled.error.get_or_insert(error);
    });
}

impl Drop for Cut {
    fn drop(&mut self) {
        let row = self.row.clone();
        if matches!(self.end, TaskEnd::Spilled) {
            let settings = self.runner.job_settings();
            settings.note_spilled(|spilled| spilled.jobs.push(row));
        } else {
            self.runner.note_unfinished(vec![row]);
        }
        let span = self.current.span.clone();
        span.in_scope(|| self.queue.report(&self.current, &self.end));
    }
}
