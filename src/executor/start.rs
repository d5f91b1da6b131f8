//! [`Start`]: a batch on its way to the worker, where it takes its first task.
//!
//! It is a quarter of a [`Batch`]'s size, which most requests never need: their tasks end on the fast path.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use crate::{
    executor::batch::Batch,
    executor::drive::Drive,
    executor::lanes::Given,
    executor::plain::{self, Left},
    queue::Queue,
    util::contain::contain,
};

/// The right to take the tasks out of a queue, whose first is async and needs no place under the runner's limits. Dropped, they
/// end aborted.
pub(crate) struct Start {
    /// `None` once it has become a batch, or has ended.
    queue: Option<Arc<Queue>>,
    /// When the response ended, if that was just now.
    clock: Option<Instant>,
    /// Before its first task it goes to the back of the worker's queue.
    pub(crate) yields: bool,
    /// There was a response, or there is none to wait for: the tasks may take the fast path.
    is_responded: bool,
}

/// How far a [`Start`] has come.
pub(crate) enum Ran {
    /// No task is left, and the queue is idle.
    Everything,
    /// Others are to run first.
    Paused,
    /// The rest is for the general path, which is pending or not.
    ButFor(Batch, Poll<()>),
}

impl Start {
    /// The caller has counted the batch.
    pub(crate) fn new(queue: Arc<Queue>, is_responded: bool) -> Self {
        Self {
            queue: Some(queue),
            clock: None,
            yields: true,
            is_responded,
        }
    }

    /// The response has just ended: it is `now`.
    ///
    /// Over HTTP/1 hyper writes what is left within the poll that ends the body, so that the batch may run right behind it. It saves
    /// a poll, and the wake-up of another worker that Tokio sends with each task that goes to the back.
    pub(crate) fn at_end(mut self, now: Instant, multiplexed: bool) -> Self {
        self.clock = Some(now);
        self.yields = multiplexed;
        self
    }

    /// Hands itself to the runtime, and returns at once: the caller is a connection, or a `Drop`. Where there is no runtime, or it is
    /// shutting down, the tasks end aborted.
    #[cfg(not(all(test, background_tasks_loom)))]
    pub(crate) fn launch(self) {
        let queue = self.queue.clone();
        let Some(runner) = queue.as_deref().and_then(Queue::runner) else {
            return;
        };
        let (drive, is_awaited) = match runner.lanes().give(self) {
            Given::Taken => return,
            Given::Back(start, lane) => (Drive::start(start, Some(lane)), false),
            Given::Further(lane) => (Drive::lane(lane), true),
        };
        let runtime = runner.runtime();
        let _ = contain(|| runtime.map(|runtime| runtime.spawn(drive)));
        if is_awaited {
            // Whatever is spawned last is in the worker's LIFO slot, from which no other takes it, and this one may be about to block.
            let _ = contain(|| runtime.map(|runtime| runtime.spawn(async {})));
        }
    }

    /// In a model: runs the tasks here and now.
    #[cfg(all(test, background_tasks_loom))]
    pub(crate) fn launch(self) {
        crate::models::run(Drive::start(self, None));
    }

    /// A recent time: when the response ended, if that was just now, or else now.
    #[inline]
    pub(crate) fn take_clock(&mut self) -> Instant {
        self.clock.take().unwrap_or_else(Instant::now)
    }

    /// Time may have passed since.
    #[inline]
    pub(crate) fn forget_clock(&mut self) {
        self.clock = None;
    }

    /// Takes the fast path as far as it goes; its first task begins `now`.
    #[inline]
    pub(crate) fn run(&mut self, now: Instant, cx: &mut Context<'_>) -> Ran {
        let queue = self.queue.as_ref().filter(|_| self.is_responded);
        let plain = queue.and_then(|queue| Some((queue, queue.plain_runner_so_far()?)));
        let Some((queue, runner)) = plain else {
            let rest = self.become_batch();
            return rest.map_or(Ran::Everything, |batch| Ran::ButFor(batch, Poll::Ready(())));
        };
        match plain::run(queue, runner.counters(), None, cx, now) {
            Left::Paused => Ran::Paused,
            Left::Nothing => {
                self.end();
                Ran::Everything
            }
            left => self.leave_plain(left, cx),
        }
    }

    fn leave_plain(&mut self, left: Left, cx: &mut Context<'_>) -> Ran {
        let Some(mut batch) = self.become_batch() else {
            return Ran::Everything;
        };
        let polled = batch.leave_plain(left, cx);
        Ran::ButFor(batch, polled)
    }

    /// A batch that has yet to take its first task.
    fn become_batch(&mut self) -> Option<Batch> {
        self.queue.take().map(Batch::begun)
    }

    fn end(&mut self) {
        if let Some(queue) = self.queue.take() {
            if let Some(runner) = queue.runner() {
                runner.batch_ended();
            }
            drop(Queue::let_go(queue));
        }
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        drop(self.become_batch());
    }
}
