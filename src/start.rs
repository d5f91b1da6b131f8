//! [`Start`]: a batch on its way to the worker, where it takes its first task.
//!
//! It is a quarter of a [`Batch`]'s size, which most requests never need: their tasks end on the fast path.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use crate::{
    batch::{Batch, Drive},
    contain::contain,
    lanes::Lane,
    plain::{self, Left},
    queue::Queue,
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
        if let Err(start) = runner.lanes().give(self) {
            let lane = Lane::new(Arc::clone(runner.lanes()));
            let runtime = runner.runtime();
            let drive = Drive::new(start, Some(lane));
            let _ = contain(|| runtime.map(|runtime| runtime.spawn(drive)));
        }
    }

    /// In a model: runs the tasks here and now.
    #[cfg(all(test, background_tasks_loom))]
    pub(crate) fn launch(self) {
        crate::models::run(Drive::new(self, None));
    }

    /// Takes the fast path as far as it goes. Pending where a task on it is, or others are to run first; what is left of it is in
    /// `start` or `batch` then.
    #[inline]
    pub(crate) fn run(
        start: &mut Option<Self>,
        batch: &mut Option<Batch>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(this) = start else {
            return Poll::Ready(());
        };
        let plain = this
            .queue
            .as_ref()
            .filter(|queue| this.is_responded && queue.is_plain_so_far());
        let Some(queue) = plain else {
            *batch = this.become_batch();
            *start = None;
            return Poll::Ready(());
        };
        let now = this.clock.take().unwrap_or_else(Instant::now);
        match plain::run(queue, None, cx, now) {
            Left::Paused => return Poll::Pending,
            Left::Nothing => this.end(),
            left => {
                let mut rest = this.become_batch();
                let polled = rest.as_mut().map(|batch| batch.leave_plain(left, cx));
                *batch = rest;
                *start = None;
                return polled.unwrap_or(Poll::Ready(()));
            }
        }
        *start = None;
        Poll::Ready(())
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
            Queue::let_go(queue);
        }
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        drop(self.become_batch());
    }
}
