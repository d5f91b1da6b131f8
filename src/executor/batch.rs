//! [`Batch`]: runs a queue's tasks, one after another. Keeps the promises "never on the
//! connection" and "order".
//!
//! A batch is a task of the runtime. It moves to the blocking pool when its next task is blocking,
//! and back when the next task is async. In a concurrent queue, it starts one more batch for each
//! task. Dropping an unfinished batch aborts its remaining tasks.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::runtime::Handle;

use super::{
    blocking,
    budget::{self, Budget},
    execution::Execution,
    limits::{Acquire, Limits, Permit},
    running_task::RunningTask,
    spawn::spawn,
};
#[cfg(all(tokio_unstable, feature = "tracing"))]
use crate::task::label::Label;
use crate::{
    queue::{
        Ended, Queue,
        dequeued::Dequeued,
        ready::{Next, Ready},
    },
    task::{Task, end::TaskEnd, kind::TaskKind, node::Needs},
    util::contain::contain_drop,
};

pub(super) struct Batch {
    stage: Stage,
    limits: Option<Arc<Limits>>,
    /// The current task's permit. It is given back after the task's end has been counted, so that
    /// no more tasks than the limit count as running.
    permit: Option<Arc<Permit>>,
    /// Dropped last, as its drop aborts the remaining tasks.
    ready: Ready,
}

enum Stage {
    /// No task is dequeued.
    Next,
    /// The dequeued task waits for its permit, or for its thread.
    Waiting(Waiting),
    Running(Execution),
    Ended,
}

struct Waiting {
    dequeued: Dequeued,
    /// `None` once the task has its permit, and if it needs none.
    acquire: Option<Box<Acquire>>,
}

impl Batch {
    pub(super) fn new(ready: Ready, limits: Option<Arc<Limits>>) -> Self {
        let dequeued = ready.dequeued();
        let mut batch = Self {
            stage: Stage::Next,
            limits,
            permit: None,
            ready,
        };
        if let Some(dequeued) = dequeued {
            batch.stage = batch.waiting(dequeued);
        }
        batch
    }

    /// Hands the batch to its runtime. Without a runtime, or while the runtime shuts down, the
    /// tasks are aborted.
    pub(super) fn launch(self) {
        if let (Some(runtime), other) = self.ready.queue().runtimes() {
            self.launch_on(&runtime, other);
        }
    }

    /// Hands the batch to `runtime`, or to `other` if that one is gone.
    pub(super) fn launch_on(self, runtime: &Handle, other: Option<Handle>) {
        if self.wants_thread() {
            blocking::launch(self, runtime, other);
        } else {
            spawn(self, runtime, other);
        }
    }

    /// Returns the label of the next task.
    #[cfg(all(tokio_unstable, feature = "tracing"))]
    pub(super) fn first_label(&self) -> Option<Label> {
        self.ready.first_label()
    }

    /// True if the next task belongs on a blocking thread that no supervisor awaits.
    fn wants_thread(&self) -> bool {
        match &self.stage {
            Stage::Next if self.limits.is_some() || self.ready.is_concurrent() => false,
            Stage::Next => {
                let needs = self.ready.first_needs();
                needs.is_some_and(|needs| self.is_for_thread(needs))
            }
            Stage::Waiting(waiting) => {
                waiting.acquire.is_none() && self.is_for_thread(waiting.dequeued.needs)
            }
            Stage::Running(_) | Stage::Ended => false,
        }
    }

    fn is_for_thread(&self, needs: Needs) -> bool {
        needs.kind == TaskKind::Blocking && self.ready.queue().timeout_of(needs).is_none()
    }

    /// Polls on a worker. Ready once the batch has ended, or once its next task needs a blocking
    /// thread.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if mem::take(&mut self.ready.yields) {
            return yield_once(cx);
        }
        let (mut budget, mut ended) = (Budget::default(), None);
        loop {
            match &mut self.stage {
                Stage::Next if budget.is_used_up() => {
                    // If no task waits, the batch ends here. Its next poll may never come.
                    self.next_waiting(ended.take());
                    if !matches!(self.stage, Stage::Ended) {
                        return Budget::give_way(cx);
                    }
                }
                Stage::Next => ended = ready!(self.poll_next(ended.take(), cx)),
                Stage::Waiting(waiting) => {
                    let queue = self.ready.queue();
                    ready!(waiting.poll_permit(&mut self.permit, queue, cx));
                    if self.wants_thread() {
                        return Poll::Ready(());
                    }
                    self.begin();
                }
                Stage::Running(execution) => {
                    let end = ready!(execution.poll(self.ready.queue(), cx));
                    ended = Some(execution.conclude(self.ready.queue(), end));
                    self.stage = Stage::Next;
                }
                Stage::Ended => return Poll::Ready(()),
            }
            if mem::take(&mut self.ready.yields) {
                return yield_once(cx);
            }
        }
    }

    /// Counts the ended task and dequeues the next, which begins or waits. Most tasks end in their
    /// first poll, and this returns that end.
    fn poll_next(&mut self, ended: Option<Ended>, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
        let next = self.next(ended.as_ref(), true);
        let is_first = ended.is_none();
        discard(ended);
        let Next::Begun(task) = next else {
            self.enter(next, is_first);
            return Poll::Ready(None);
        };
        let queue = self.ready.queue();
        let mut execution = Execution::here(RunningTask::new(queue, task));
        match execution.poll(queue, cx) {
            Poll::Ready(end) => Poll::Ready(Some(execution.conclude(queue, end))),
            Poll::Pending => {
                self.stage = Stage::Running(execution);
                Poll::Pending
            }
        }
    }

    /// Runs consecutive blocking tasks on this thread.
    pub(super) fn run_on_thread(mut self) {
        let (hopped, mut ended) = (Instant::now(), None);
        loop {
            if let Stage::Next = self.stage {
                let is_first = ended.is_none();
                self.next_waiting(ended.take());
                // Other batches may wait for a thread, so this one goes through the pool's queue
                // again.
                if !is_first && hopped.elapsed() > budget::ON_THREAD {
                    break;
                }
            }
            if !self.wants_thread() {
                break;
            }
            self.begin();
            if let Stage::Running(execution) = &mut self.stage {
                let end = execution.run(self.ready.queue());
                ended = Some(execution.conclude(self.ready.queue(), end));
                self.stage = Stage::Next;
            }
        }
        if !matches!(self.stage, Stage::Ended) {
            self.launch();
        }
    }

    /// Counts the ended task, gives its permit back, and dequeues the next.
    fn next(&mut self, ended: Option<&Ended>, on_worker: bool) -> Next {
        let next = self.ready.next(ended, on_worker);
        self.permit = None;
        next
    }

    /// Counts the ended task and dequeues the next, which does not begin yet.
    fn next_waiting(&mut self, ended: Option<Ended>) {
        let next = self.next(ended.as_ref(), false);
        self.enter(next, ended.is_none());
        discard(ended);
    }

    /// Handles what the queue returned: a task, or the end of the batch.
    fn enter(&mut self, next: Next, is_first: bool) {
        self.stage = match next {
            Next::End => Stage::Ended,
            Next::Begun(task) => return self.run(task),
            Next::Waiting(dequeued) if self.ready.is_concurrent() => {
                self.ready.run_beside(&dequeued);
                Stage::Next
            }
            Next::Waiting(dequeued) => {
                // Ready batches of other requests run before this request's next task.
                self.ready.yields = !is_first && self.limits.is_some();
                self.waiting(dequeued)
            }
        };
    }

    fn run(&mut self, task: Task) {
        let task = RunningTask::new(self.ready.queue(), task);
        self.stage = Stage::Running(Execution::here(task));
    }

    fn waiting(&self, dequeued: Dequeued) -> Stage {
        let limits = self.limits.as_ref();
        Stage::Waiting(Waiting {
            acquire: limits.map(|limits| limits.acquire(dequeued.needs.kind)),
            dequeued,
        })
    }

    /// Begins the waiting task, which now has its permit and its thread.
    fn begin(&mut self) {
        let Stage::Waiting(waiting) = mem::replace(&mut self.stage, Stage::Next) else {
            return;
        };
        let queue = self.ready.queue();
        let Dequeued { id, needs } = waiting.dequeued;
        let limit = queue.timeout_of(needs);
        if needs.kind == TaskKind::Blocking && limit.is_some() {
            let permit = self.permit.as_ref().map(Arc::downgrade);
            let execution = Execution::supervised(queue, id, permit, limit);
            self.stage = Stage::Running(execution);
        } else if let Some(task) = queue.begin(id) {
            self.run(task);
        }
        // Otherwise the task's end is claimed, and the batch continues with the next task.
    }
}

impl Waiting {
    /// Ready once the task has its permit, or if its end is claimed.
    fn poll_permit(
        &mut self,
        permit: &mut Option<Arc<Permit>>,
        queue: &Queue,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(acquire) = &mut self.acquire else {
            return Poll::Ready(());
        };
        match acquire.poll(cx) {
            Poll::Ready(acquired) => *permit = Some(acquired),
            Poll::Pending if queue.park(self.dequeued.id, cx.waker()) => return Poll::Pending,
            Poll::Pending => {}
        }
        self.acquire = None;
        Poll::Ready(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Stage::Running(execution) = &mut self.stage {
            let queue = self.ready.queue();
            let ended = execution.conclude(queue, TaskEnd::Aborted);
            queue.settle(&ended);
            discard(Some(ended));
        }
    }
}

/// Drops an end. Its error is user code.
#[inline]
fn discard(ended: Option<Ended>) {
    match ended {
        None
        | Some(Ended {
            end: TaskEnd::Completed,
            ..
        }) => {}
        Some(ended) => drop(contain_drop(ended)),
    }
}

/// Sends the batch to the back of the worker's queue, behind the connection. A batch that is
/// spawned in a body's poll or drop would otherwise run before the connection's task. Over HTTP/2,
/// that task has yet to write the response.
fn yield_once(cx: &mut Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// A batch as a task of the runtime.
pub(crate) struct OnWorker {
    /// `None` once the batch has moved to the blocking pool.
    batch: Option<Batch>,
    /// The runtime that takes the batch if its own is gone. `None` once the batch has been polled.
    other: Option<Handle>,
}

impl OnWorker {
    pub(super) fn new(batch: Batch, other: Option<Handle>) -> Self {
        Self {
            batch: Some(batch),
            other,
        }
    }
}

impl Future for OnWorker {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.other = None;
        if let Some(batch) = &mut self.batch {
            ready!(batch.poll(cx));
        }
        if let Some(batch) = self.batch.take_if(|batch| batch.wants_thread()) {
            batch.launch();
        }
        Poll::Ready(())
    }
}

/// A runtime that is gone drops the batch within the call that spawns it.
impl Drop for OnWorker {
    fn drop(&mut self) {
        if let (Some(batch), Some(other)) = (self.batch.take(), self.other.take()) {
            batch.launch_on(&other, None);
        }
    }
}
