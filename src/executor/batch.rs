//! [`Batch`]: runs a queue's tasks, one after another. Keeps the promises "never on the connection" and "order".
//!
//! A batch is a task of the runtime. Where its next task is blocking it moves to the blocking pool, and back when one is async.
//! Of a queue whose tasks run side by side, it spawns a batch for each. Wherever it is dropped unfinished, what is left of it
//! ends aborted.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::task::coop;

use super::{
    blocking,
    budget::{self, Budget},
    execution::Execution,
    limits::{Acquire, Limits, Permit},
    running_task::RunningTask,
};
use crate::{
    queue::{
        Ended, Queue,
        ready::{Next, Ready},
        turn::Turn,
    },
    task::{end::TaskEnd, kind::TaskKind, node::Needs},
    util::{contain::contain_drop, sync::now},
};

pub(super) struct Batch {
    stage: Stage,
    budget: Budget,
    limits: Option<Arc<Limits>>,
    /// Dropped last: it ends what is left.
    ready: Ready,
}

enum Stage {
    /// The next task's turn has not come.
    Next,
    /// A task's turn has come, and it waits for its permit, or for the thread that it is to run on.
    Waiting(Waiting),
    Running(Execution),
    Ended,
}

struct Waiting {
    turn: Turn,
    /// `None` once it has a permit, and where it needs none.
    acquire: Option<Acquire>,
    permit: Option<Permit>,
}

impl Batch {
    pub(super) fn new(mut ready: Ready, limits: Option<Arc<Limits>>) -> Self {
        let turn = ready.take_turn();
        let mut batch = Self {
            stage: Stage::Next,
            budget: Budget::default(),
            limits,
            ready,
        };
        if let Some(turn) = turn {
            batch.stage = batch.waiting(turn);
        }
        batch
    }

    /// Hands the batch to the runtime. Where there is none, or it is shutting down, its tasks end aborted.
    pub(super) fn launch(self) {
        let Some(runtime) = self.ready.queue().runtime() else {
            return;
        };
        if self.wants_thread() {
            blocking::launch(self, &runtime);
        } else {
            runtime.spawn(OnWorker::new(self));
        }
    }

    /// The next task is to run on a blocking thread, where nobody waits for it.
    fn wants_thread(&self) -> bool {
        match &self.stage {
            Stage::Next if self.limits.is_some() || self.ready.is_concurrent() => false,
            Stage::Next => {
                (self.ready.first_needs()).is_some_and(|needs| self.is_for_thread(needs))
            }
            Stage::Waiting(waiting) => {
                waiting.acquire.is_none() && self.is_for_thread(waiting.turn.needs)
            }
            Stage::Running(_) | Stage::Ended => false,
        }
    }

    fn is_for_thread(&self, needs: Needs) -> bool {
        needs.kind == TaskKind::Blocking && self.ready.queue().timeout_of(needs).is_none()
    }

    /// Runs on a worker. Ready when the batch has ended, or its next task wants a blocking thread.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.budget.renew();
        loop {
            if mem::take(&mut self.ready.yields) {
                // What is spawned from a body's poll or drop runs before the connection's task, which over HTTP/2 has yet to
                // write the response. Waking itself sends this to the back of the worker's queue, behind the connection.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(coop::poll_proceed(cx)).made_progress();
            match &mut self.stage {
                Stage::Next => self.next(None, true, now()),
                Stage::Waiting(waiting) => {
                    ready!(waiting.poll_permit(self.ready.queue(), cx));
                    if self.wants_thread() {
                        return Poll::Ready(());
                    }
                    self.begin();
                }
                Stage::Running(execution) => {
                    let end = ready!(execution.poll(self.ready.queue(), cx));
                    ready!(self.complete_on_worker(end, cx));
                }
                Stage::Ended => return Poll::Ready(()),
            }
        }
    }

    /// Runs blocking tasks in a row.
    pub(super) fn run_on_thread(mut self) {
        let hopped = Instant::now();
        loop {
            match self.stage {
                Stage::Next => self.next(None, false, now()),
                Stage::Waiting(_) if self.wants_thread() => {
                    self.begin();
                    self.run_blocking();
                }
                Stage::Ended => return,
                // An async task, or one that waits for a permit.
                Stage::Waiting(_) | Stage::Running(_) => return self.launch(),
            }
            if hopped.elapsed() > budget::ON_THREAD && !matches!(self.stage, Stage::Ended) {
                return self.launch();
            }
        }
    }

    fn run_blocking(&mut self) {
        if let Stage::Running(execution) = &mut self.stage {
            let end = execution.run(self.ready.queue());
            let ended = self.conclude(end);
            self.next(ended.as_ref(), false, now());
            let _ = contain_drop(ended); // the error in it is user code, too
        }
    }

    /// Pending where others are to run before the next task.
    fn complete_on_worker(&mut self, end: TaskEnd, cx: &mut Context<'_>) -> Poll<()> {
        let (ended, now) = (self.conclude(end), now());
        let gives_way = self.budget.is_used_up(now);
        match &ended {
            Some(ended) if gives_way => self.ready.queue().settle(ended),
            _ => self.next(ended.as_ref(), true, now),
        }
        let _ = contain_drop(ended);
        if gives_way {
            return self.budget.give_way(cx);
        }
        Poll::Ready(())
    }

    /// The task has ended, and is dropped: nothing of it is alive when the next one begins.
    fn conclude(&mut self, end: TaskEnd) -> Option<Ended> {
        match mem::replace(&mut self.stage, Stage::Next) {
            Stage::Running(execution) => Some(execution.conclude(self.ready.queue(), end)),
            _ => None,
        }
    }

    /// The turn of the next task comes.
    fn next(&mut self, ended: Option<&Ended>, on_worker: bool, now: tokio::time::Instant) {
        self.stage = match self.ready.next(ended, on_worker, now) {
            Next::End => Stage::Ended,
            Next::Begun(task) => {
                let task = RunningTask::new(self.ready.queue(), task, None);
                Stage::Running(Execution::here(task))
            }
            Next::Waiting(turn) if self.ready.is_concurrent() => {
                self.ready.run_beside(turn);
                Stage::Next
            }
            Next::Waiting(turn) => {
                // Those of other requests that are ready come before this request's next.
                self.ready.yields = ended.is_some() && self.limits.is_some();
                self.waiting(turn)
            }
        };
    }

    fn waiting(&self, turn: Turn) -> Stage {
        let limits = self.limits.as_ref();
        Stage::Waiting(Waiting {
            acquire: limits.map(|limits| limits.acquire(turn.needs.kind)),
            permit: None,
            turn,
        })
    }

    /// The task that waits has what it needs.
    fn begin(&mut self) {
        let Stage::Waiting(waiting) = mem::replace(&mut self.stage, Stage::Next) else {
            return;
        };
        let (queue, Waiting { turn, permit, .. }) = (self.ready.queue(), waiting);
        let limit = queue.timeout_of(turn.needs);
        if turn.needs.kind == TaskKind::Blocking && limit.is_some() {
            let execution = Execution::supervised(queue, turn.id, permit, limit);
            self.stage = Stage::Running(execution);
        } else if let Some(task) = queue.begin(turn.id) {
            let task = RunningTask::new(queue, task, permit);
            self.stage = Stage::Running(Execution::here(task));
        }
        // Otherwise somebody has ended it: on to the next.
    }
}

impl Waiting {
    /// Ready also where somebody has ended the task.
    fn poll_permit(&mut self, queue: &Queue, cx: &mut Context<'_>) -> Poll<()> {
        let Some(acquire) = &mut self.acquire else {
            return Poll::Ready(());
        };
        match acquire.poll(cx) {
            Poll::Ready(permit) => self.permit = Some(permit),
            Poll::Pending if queue.park(self.turn.id, cx.waker()) => return Poll::Pending,
            Poll::Pending => {}
        }
        self.acquire = None;
        Poll::Ready(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(ended) = self.conclude(TaskEnd::Aborted) {
            self.ready.queue().settle(&ended);
            let _ = contain_drop(ended);
        }
    }
}

/// A batch as a task of the runtime. `None` once it has moved.
pub(crate) struct OnWorker(Option<Batch>);

impl OnWorker {
    pub(super) fn new(batch: Batch) -> Self {
        Self(Some(batch))
    }
}

impl Future for OnWorker {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(batch) = &mut self.0 {
            ready!(batch.poll(cx));
        }
        if let Some(batch) = self.0.take_if(|batch| batch.wants_thread()) {
            batch.launch();
        }
        Poll::Ready(())
    }
}
