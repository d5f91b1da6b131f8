//! [`Batch`]: a queue's turn on the runner. Keeps the promises "once" and "order".
//!
//! A batch is the one right to take tasks out of its queue, once its [`Start`](crate::executor::start::Start) has become one. It is handed
//! from the async runtime to the blocking pool and back as the tasks want it, and waits for a place under the runner's limits in
//! between; wherever it is dropped unfinished, what is left of it ends aborted.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{task::coop, time::Instant};

use crate::{
    TaskEnd,
    executor::admission::Permit,
    executor::drive::Drive,
    executor::execution::{Execution, clear, discard},
    executor::plain::{self, Left},
    executor::sent::{self, Sent},
    executor::slice::Slice,
    queue::{Advance, Queue, Turn},
    util::contain::contain,
};

pub(crate) struct Batch {
    queue: Arc<Queue>,
    /// The task whose turn it is. `None` before the first one's has come, and once the batch has ended.
    current: Option<Execution>,
    has_ended: bool,
    /// This is one task among others of its queue, which run beside it.
    alone: bool,
    /// A recent time, for a task that begins in a runner that nobody observes: it saves a look at the clock for each. `None`
    /// where time may have passed since.
    clock: Option<Instant>,
    /// Before its first task the batch goes to the back of the worker's queue.
    pub(crate) yields: bool,
}

impl Batch {
    /// The caller has counted the batch.
    pub(crate) fn new(queue: Arc<Queue>, first: Turn) -> Self {
        Self::begin(queue, first, false)
    }

    /// The same, for a batch that has yet to take its first task.
    pub(crate) fn begun(queue: Arc<Queue>) -> Self {
        Self {
            current: None,
            has_ended: false,
            queue,
            alone: false,
            clock: None,
            yields: false,
        }
    }

    /// For one task of a queue whose tasks run concurrently.
    pub(crate) fn of_one(queue: Arc<Queue>, only: Turn) -> Self {
        Self::begin(queue, only, true)
    }

    fn begin(queue: Arc<Queue>, first: Turn, alone: bool) -> Self {
        let mut batch = Self::begun(queue);
        batch.current = Some(Execution::new(first));
        batch.alone = alone;
        batch.yields = true;
        batch
    }

    /// The response has just ended: see [`Start::at_end`](crate::executor::start::Start::at_end).
    pub(crate) fn at_end(mut self, now: Instant, multiplexed: bool) -> Self {
        self.clock = Some(now);
        self.yields = multiplexed;
        self
    }

    /// Sets the batch going when it is admitted, and returns at once: the caller is a connection, or a `Drop`.
    pub(crate) fn start(self) {
        if let Some(batch) = self.admitted() {
            batch.launch();
        }
    }

    /// In a model: runs the batch here and now.
    #[cfg(all(test, background_tasks_loom))]
    pub(crate) fn launch(self) {
        crate::models::run(Drive::batch(self));
    }

    /// Hands the batch to the runtime. Where there is none, or it is shutting down, its tasks end aborted.
    #[cfg(not(all(test, background_tasks_loom)))]
    pub(crate) fn launch(self) {
        let queue = Arc::clone(&self.queue);
        let Some(runner) = queue.runner() else { return };
        let Some(runtime) = runner.runtime() else {
            return;
        };
        if !self.wants_blocking_thread() {
            let _ = contain(|| runtime.spawn(Drive::batch(self)));
        } else if runner.crew().put(self) {
            Sent::send(runner.crew(), runtime);
        }
    }

    /// One hop to the blocking pool serves blocking tasks in a row, up to [`HOLDS_THREAD`](sent::HOLDS_THREAD).
    pub(crate) fn run_blocking(mut self, hopped: std::time::Instant) {
        self.clock = None; // the pool may have let it wait, and its tasks take their time
        let mut now = Instant::now();
        while let Some(execution) = &mut self.current {
            let end = execution.run_here(&self.queue, now);
            self.advance(end);
            if self.has_ended {
                return;
            }
            let Some(batch) = self.admitted() else { return };
            now = Instant::now();
            if !batch.wants_blocking_thread() || hopped.elapsed() > sent::HOLDS_THREAD {
                return batch.launch();
            }
            self = batch;
        }
    }

    /// Gives the batch back when its task has a place under the runner's limits; otherwise it starts by itself, later.
    fn admitted(mut self) -> Option<Self> {
        if !self.wants_permit() {
            return Some(self);
        }
        self.clock = None;
        let runner = self.queue.runner()?.clone();
        runner.admission()?.admit(&runner, self)
    }

    #[inline]
    fn wants_permit(&self) -> bool {
        let limited = self
            .queue
            .runner()
            .is_some_and(|runner| runner.admission().is_some());
        limited && !self.current.as_ref().is_some_and(Execution::has_permit)
    }

    pub(crate) fn set_permit(&mut self, permit: Permit) {
        if let Some(execution) = &mut self.current {
            execution.set_permit(permit);
        }
    }

    pub(crate) fn is_blocking(&self) -> bool {
        self.current.as_ref().is_some_and(Execution::is_blocking)
    }

    #[inline]
    fn wants_blocking_thread(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|execution| execution.wants_blocking_thread(&self.queue))
    }

    /// The current task's turn on a worker, as far as it goes without waiting.
    #[inline]
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let progress = match coop::poll_proceed(cx) {
            Poll::Ready(progress) => progress,
            Poll::Pending => {
                self.clock = None;
                return Poll::Pending;
            }
        };
        ready!(self.run_plain(cx));
        if !self.has_ended && self.current.is_none() {
            self.take_first();
        }
        if !self.is_done_here() {
            let end = ready!(self.poll_current(cx));
            self.advance(end);
            progress.made_progress();
        }
        Poll::Ready(())
    }

    /// Another task has gone by. Pending where others are to run first.
    pub(crate) fn poll_others(&mut self, slice: &mut Slice, cx: &mut Context<'_>) -> Poll<()> {
        let others = slice.poll_others(1, cx);
        if !matches!(others, Poll::Ready(None)) {
            self.clock = None;
        }
        others.map(drop)
    }

    /// True for a batch that has ended, or whose next task cannot be polled by this worker, or not yet.
    #[inline]
    pub(crate) fn is_done_here(&self) -> bool {
        self.has_ended || self.wants_permit() || self.wants_blocking_thread()
    }

    /// Gives the batch back if its next task is to be polled here after all. Otherwise it has ended, waits for a place, or is on its
    /// way to the blocking pool.
    pub(crate) fn for_this_worker(self) -> Option<Self> {
        if self.has_ended {
            self.let_go();
            return None;
        }
        let batch = self.admitted()?;
        if batch.wants_blocking_thread() {
            batch.launch();
            return None;
        }
        Some(batch)
    }

    /// Keeps the queue for another request. Threads of the blocking pool do not: they take no requests.
    fn let_go(self) {
        let queue = Arc::clone(&self.queue);
        drop(self);
        drop(Queue::let_go(queue));
    }

    /// Takes the fast path as far as it goes. Pending where a task on it is, or others are to run first.
    #[inline]
    fn run_plain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let fresh = self.current.as_ref().is_some_and(Execution::is_fresh);
        let queue = fresh.then_some(&self.queue);
        let Some(runner) = queue.and_then(|queue| queue.plain_runner()) else {
            return Poll::Ready(());
        };
        let turn = self.current.take().map(Execution::into_turn);
        let now = *self.clock.get_or_insert_with(Instant::now);
        let left = plain::run(&self.queue, runner.counters(), turn, cx, now);
        self.leave_plain(left, cx)
    }

    /// Goes on behind the fast path.
    pub(crate) fn leave_plain(&mut self, left: Left, cx: &mut Context<'_>) -> Poll<()> {
        match left {
            Left::Nothing => self.end(),
            Left::Waiting(turn) => self.current = Some(Execution::new(turn)),
            Left::Ended(turn, end) => {
                self.current = Some(Execution::begun(turn));
                self.advance(end);
            }
            Left::Pending(turn) => {
                self.clock = None;
                let key = turn.key;
                self.current = Some(Execution::begun(turn));
                if self.queue.park(key, cx.waker()) {
                    return Poll::Pending;
                }
                self.advance(TaskEnd::Aborted);
            }
            Left::Paused => {
                self.clock = None;
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// The first task's turn has come, which is not to take the fast path after all.
    fn take_first(&mut self) {
        self.current = self.queue.first_turn().map(Execution::new);
        if self.current.is_none() {
            self.end();
        }
    }

    /// No task is left.
    fn end(&mut self) {
        self.has_ended = true;
        if let Some(runner) = self.queue.runner() {
            runner.batch_ended();
        }
    }

    #[inline]
    fn poll_current(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        let (queue, clock) = (&self.queue, &mut self.clock);
        let Some(execution) = &mut self.current else {
            return Poll::Ready(TaskEnd::Aborted);
        };
        let now = || match queue.runner() {
            Some(runner) if !runner.is_observed() => *clock.get_or_insert_with(Instant::now),
            _ => Instant::now(),
        };
        let polled = execution.poll(queue, cx, now);
        if polled.is_pending() {
            self.clock = None;
        }
        polled
    }

    /// The current task has ended: reports it, unless somebody has, and goes on to the next.
    #[inline]
    fn advance(&mut self, end: TaskEnd) {
        let Some(key) = self.current.as_ref().map(Execution::key) else {
            return discard(end);
        };
        let span = self
            .current
            .as_mut()
            .map(Execution::take_span)
            .unwrap_or_default();
        // Nothing of it is alive when the next task begins.
        let end = clear(&mut self.current, &span, end);
        let Advance { ended, next } = if self.alone {
            let ended = self.queue.ended(key, end.is_failure());
            Advance { ended, next: None }
        } else {
            self.queue.advance(key, end.is_failure())
        };
        if let Some(current) = ended {
            self.queue.report(current, &end, span);
        }
        discard(end);
        self.current = next.map(Execution::new);
        if self.current.is_none() {
            self.end();
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        while !self.has_ended {
            if self.current.is_none() {
                self.take_first();
            } else {
                self.advance(TaskEnd::Aborted);
            }
        }
    }
}
