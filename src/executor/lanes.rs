//! [`Lanes`]: tasks of the runtime that wait for a batch to drive, instead of one that is made for each batch and thrown away.
//!
//! Waking a lane takes about 0.15 µs less than spawning a task: nothing is allocated, and the runtime has it on its books already.
//!
//! 1. A lane drives one batch at a time, so that batches run side by side as tasks of the runtime do.
//! 2. A lane is free, and may be given a batch, from when it parks until it is given one. It then takes that batch before it
//!    parks again.
//! 3. A lane belongs to the shard of the thread that made it, and is given batches by the threads of that shard.
//! 4. Whoever has a batch, and no lane is free, makes one; where there are as many as may stay, it waits, and who puts it there makes
//!    a further lane if none is on its way. Each lane takes what waits before it parks, and makes a further one if it leaves some
//!    behind. So of a rush most are driven by a few lanes, one after another, and neither a batch that is pending nor one that holds its
//!    worker keeps others waiting.
//! 5. A lane whose batch is pending is set aside: it does not count among those that stay until it parks again. So tasks that sleep
//!    leave the lanes to those that do not.
//! 6. Wakers and batches are code of others: they are woken and dropped with no lock held.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    util::contain::contain,
    util::sharded::{Sharded, this_shard},
    util::sync::{Mutex, lock},
    util::waiting::Waiting,
};

/// So many lanes stay in each shard. One in a model, so that work has to wait.
const LANES: usize = if cfg!(all(test, background_tasks_loom)) {
    1
} else {
    64
};

/// The lanes of one runner. `T` is what they are given to drive.
pub(crate) struct Lanes<T> {
    shards: Sharded<Mutex<Shard<T>>>,
}

struct Shard<T> {
    /// Those that stay; `None` where one has gone.
    lanes: Vec<Option<Slot<T>>>,
    /// Which of them are free, the one that parked last on top: what it touches may still be in the cache.
    free: Vec<usize>,
    /// Where one has gone.
    vacant: Vec<usize>,
    /// How many there are, with those that have yet to park for the first time, and without those that are set aside.
    alive: usize,
    /// What found no lane. Nothing while one is free.
    waiting: Waiting<T>,
    /// The runner has shut down, or is gone: lanes end.
    closed: bool,
}

struct Slot<T> {
    given: Option<T>,
    waker: Waker,
}

/// A lane's place among those that stay, held by the task that is the lane. When it is dropped, the lane is gone.
pub(crate) struct Lane<T> {
    lanes: Arc<Lanes<T>>,
    shard: usize,
    /// `None` until it first parks.
    index: Option<usize>,
    /// It is among the free, or has been given something that it has not taken.
    parked: bool,
    /// It is on its way to what waits.
    is_expected: bool,
    /// It does not count, and has no place.
    is_aside: bool,
}

/// What becomes of work for a lane.
pub(crate) enum Given<T> {
    /// A lane has it, or will have it.
    Taken,
    /// The caller is to set a new lane going, which is to drive this first.
    Back(T, Lane<T>),
    /// The caller is to set a new lane going.
    Further(Lane<T>),
}

/// What a lane has to drive.
pub(crate) struct Next<T> {
    pub(crate) work: T,
    /// It has waited for a lane.
    pub(crate) waited: bool,
    /// [`Lane::another`] is to be set going before.
    pub(crate) send: bool,
}

impl<T> Lanes<T> {
    /// Gives `work` to a lane that is free, or has it wait for one.
    pub(crate) fn give(self: &Arc<Self>, work: T) -> Given<T> {
        let this = this_shard();
        let mut shard = lock(self.shards.get(this));
        let free = shard.free.pop();
        if let Some(slot) = free.and_then(|index| shard.lanes[index].as_mut()) {
            slot.given = Some(work);
            let waker = slot.waker.clone();
            drop(shard);
            // A runtime that is shutting down has dropped the lane, or is about to: then the work is dropped with it.
            let _ = contain(|| waker.wake());
            return Given::Taken;
        }
        if shard.alive < LANES || shard.closed {
            return Given::Back(work, shard.lane(self, this, false));
        }
        shard.waiting.push(work);
        match shard.waiting.sends() {
            true => Given::Further(shard.lane(self, this, true)),
            false => Given::Taken,
        }
    }

    /// Ends the lanes that are free, and each of the others when it has nothing left to drive.
    pub(crate) fn close(&self) {
        for shard in self.shards.iter() {
            let mut shard = lock(shard);
            shard.closed = true;
            let free = mem::take(&mut shard.free);
            let lanes = free
                .into_iter()
                .filter_map(|index| shard.lanes[index].as_ref());
            let wakers: Vec<_> = lanes.map(|slot| slot.waker.clone()).collect();
            drop(shard);
            for waker in wakers {
                let _ = contain(|| waker.wake());
            }
        }
    }
}

impl<T> Lane<T> {
    /// Has what waits, or parks and has what the lane is given to drive. `None` ends the lane.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next<T>>> {
        let shard = &mut *lock(self.lanes.shards.get(self.shard));
        if self.parked {
            let slot = self.index.and_then(|index| shard.lanes[index].as_mut());
            return match slot.and_then(|slot| slot.given.take()) {
                Some(work) => {
                    self.parked = false;
                    Poll::Ready(Some(Next {
                        work,
                        waited: false,
                        send: false,
                    }))
                }
                None if shard.closed => Poll::Ready(None),
                None => Poll::Pending,
            };
        }
        if mem::take(&mut self.is_expected) {
            shard.waiting.arrived();
        }
        if let Some(work) = shard.waiting.pop() {
            let send = shard.waiting.sends();
            return Poll::Ready(Some(Next {
                work,
                waited: true,
                send,
            }));
        }
        if shard.closed || self.is_aside && shard.alive >= LANES {
            return Poll::Ready(None);
        }
        shard.alive += usize::from(mem::take(&mut self.is_aside));
        let Some(index) = self.index.or_else(|| shard.vacant()) else {
            return Poll::Ready(None);
        };
        shard.lanes[index].get_or_insert_with(|| Slot {
            given: None,
            waker: cx.waker().clone(), // that of a task of the runtime: it does not change
        });
        self.index = Some(index);
        self.parked = true;
        shard.free.push(index);
        Poll::Pending
    }
}

impl<T> Lane<T> {
    /// What it drives is pending, or has given way to others.
    pub(crate) fn set_aside(&mut self) {
        if mem::replace(&mut self.is_aside, true) {
            return;
        }
        let mut shard = lock(self.lanes.shards.get(self.shard));
        shard.alive -= 1;
        let slot = self.index.take().and_then(|index| shard.leave(index));
        drop(shard);
        drop(slot);
    }

    /// A lane for what this one leaves behind.
    pub(crate) fn another(&self) -> Self {
        let mut shard = lock(self.lanes.shards.get(self.shard));
        shard.lane(&self.lanes, self.shard, true)
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        let mut shard = lock(self.lanes.shards.get(self.shard));
        shard.alive -= usize::from(!self.is_aside);
        let slot = self.index.and_then(|index| {
            shard.free.retain(|free| *free != index);
            shard.leave(index)
        });
        let missed = self.is_expected.then(|| shard.waiting.missed());
        drop(shard);
        drop((slot, missed));
    }
}

impl<T> Shard<T> {
    fn lane(&mut self, lanes: &Arc<Lanes<T>>, shard: usize, is_expected: bool) -> Lane<T> {
        self.alive += 1;
        Lane {
            lanes: Arc::clone(lanes),
            shard,
            index: None,
            parked: false,
            is_expected,
            is_aside: false,
        }
    }

    /// A place for one more lane to stay, if there is one.
    fn vacant(&mut self) -> Option<usize> {
        self.vacant.pop().or_else(|| {
            let index = self.lanes.len();
            (index < LANES).then(|| {
                self.lanes.push(None);
                index
            })
        })
    }

    /// What was in the place, for the caller to drop.
    fn leave(&mut self, index: usize) -> Option<Slot<T>> {
        self.vacant.push(index);
        self.lanes[index].take()
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            shards: Sharded::default(),
        }
    }
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            free: Vec::new(),
            vacant: Vec::new(),
            alive: 0,
            waiting: Waiting::default(),
            closed: false,
        }
    }
}
