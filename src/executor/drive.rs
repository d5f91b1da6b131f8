//! [`Drive`]: the task of the runtime in which batches run. Keeps the promise "never on the connection".

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::task::coop;

use crate::{
    executor::batch::Batch,
    executor::lanes::Lane,
    executor::slice::Slice,
    executor::start::{Ran, Start},
    util::contain::contain,
};

/// Runs a batch's tasks one after another, and then the next batch that its lane is given.
pub(crate) struct Drive {
    driven: Driven,
    yielded: bool,
    /// `None` for a batch that is a task of the runtime by itself.
    lane: Option<Lane<Start>>,
}

/// So many batches that wait for a lane, and end at once, count as one step in Tokio's [`coop`]. It holds where the clock is paused, too,
/// and no [`Slice`] is ever over.
const BATCHES_A_STEP: u32 = 4;

enum Driven {
    /// The batch has ended, or gone elsewhere.
    Nothing,
    Start(Start),
    Batch(Batch),
}

impl Drive {
    pub(crate) fn start(start: Start, lane: Option<Lane<Start>>) -> Self {
        Self {
            yielded: !start.yields,
            driven: Driven::Start(start),
            lane,
        }
    }

    /// For what waits for a lane.
    pub(crate) fn lane(lane: Lane<Start>) -> Self {
        Self {
            yielded: true,
            driven: Driven::Nothing,
            lane: Some(lane),
        }
    }

    pub(crate) fn batch(batch: Batch) -> Self {
        Self {
            yielded: !batch.yields,
            driven: Driven::Batch(batch),
            lane: None,
        }
    }

    /// Drives what there is, until it has ended or gone elsewhere.
    #[inline]
    fn poll_driven(&mut self, slice: &mut Slice, cx: &mut Context<'_>) -> Poll<()> {
        if !self.yielded {
            // What is woken from a body's poll or drop runs before the connection's task, which over HTTP/2 has yet to write the
            // response. Waking itself sends this to the back of the worker's queue, behind the connection.
            self.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match &mut self.driven {
                Driven::Nothing => return Poll::Ready(()),
                Driven::Start(start) => {
                    let now = start.take_clock();
                    if slice.is_over(now) {
                        cx.waker().wake_by_ref(); // other workers may take it from the back of this one's queue
                        return Poll::Pending;
                    }
                    match start.run(now, cx) {
                        Ran::Everything => self.driven = Driven::Nothing,
                        Ran::Paused => return Poll::Pending,
                        Ran::ButFor(batch, polled) => {
                            self.driven = Driven::Batch(batch);
                            ready!(polled);
                        }
                    }
                }
                Driven::Batch(batch) => {
                    ready!(batch.poll_turn(cx));
                    if batch.is_done_here() {
                        self.move_batch();
                    }
                    if let Driven::Batch(batch) = &mut self.driven {
                        ready!(batch.poll_others(slice, cx));
                    }
                }
            }
        }
    }

    fn move_batch(&mut self) {
        if let Driven::Batch(batch) = mem::replace(&mut self.driven, Driven::Nothing) {
            if let Some(batch) = batch.for_this_worker() {
                self.driven = Driven::Batch(batch);
            }
        }
    }
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (mut slice, mut batches) = (Slice::default(), 0_u32);
        loop {
            let polled = this.poll_driven(&mut slice, cx);
            let Some(lane) = &mut this.lane else {
                return polled;
            };
            if let (Poll::Pending, Driven::Batch(_)) = (polled, &this.driven) {
                lane.set_aside();
            }
            ready!(polled);
            batches += 1;
            if batches % BATCHES_A_STEP == 0 {
                ready!(coop::poll_proceed(cx)).made_progress();
            }
            let Some(mut next) = ready!(lane.poll_next(cx)) else {
                return Poll::Ready(());
            };
            if next.waited {
                next.work.forget_clock();
            }
            // The further lane is in this worker's LIFO slot, from which no other takes it, so it goes first.
            this.yielded = !next.work.yields && !next.send;
            this.driven = Driven::Start(next.work);
            if next.send {
                set_going(lane.another());
            }
        }
    }
}

/// On the runtime of the lane that calls this. Where it is shutting down, what waits for a lane ends aborted.
fn set_going(lane: Lane<Start>) {
    let drive = Drive::lane(lane);
    let _ = contain(|| tokio::spawn(drive));
}
