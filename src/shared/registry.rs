//! [`Registry`]: the queues that hold tasks which have not ended, so that they can be named, and aborted at shutdown.
//!
//! 1. A queue is here from its first task until it has none, and it enters and leaves with its own lock held. So the order is
//!    queue, then registry; who looks through the registry takes what it holds out first, and locks the queues afterwards.
//! 2. Once closed, it lets no queue in. Closing takes each shard's lock, so whoever was let in before is seen by the one who
//!    closed it.

use std::sync::Arc;

use crate::{
    queue::Queue,
    util::sharded::{SHARDS, Sharded, this_shard},
    util::sync::{Mutex, lock},
};

/// So many places stay in each shard when all are free. Whoever looks through the registry goes through them.
const KEPT_PLACES: usize = 64;

#[derive(Default)]
pub(crate) struct Registry {
    shards: Sharded<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    closed: bool,
    queues: Vec<Option<Arc<Queue>>>,
    free: Vec<usize>,
}

/// A queue's place: its index in the shard, times the number of shards, plus the shard's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(usize);

/// The registry is closed.
#[derive(Debug)]
pub(crate) struct Closed;

impl Registry {
    pub(crate) fn enter(&self, queue: &Arc<Queue>) -> Result<Place, Closed> {
        let shard = this_shard();
        let mut entries = lock(self.shards.get(shard));
        if entries.closed {
            return Err(Closed);
        }
        let index = entries.free.pop().unwrap_or_else(|| {
            entries.queues.push(None);
            entries.queues.len() - 1
        });
        entries.queues[index] = Some(Arc::clone(queue));
        Ok(Place(index * SHARDS + shard))
    }

    /// Gives back the registry's handle, for the caller to drop when it holds no lock.
    pub(crate) fn leave(&self, Place(place): Place) -> Option<Arc<Queue>> {
        let (shard, index) = (place % SHARDS, place / SHARDS);
        let mut entries = lock(self.shards.get(shard));
        entries.free.push(index);
        let handle = entries.queues[index].take();
        if entries.queues.len() > KEPT_PLACES && entries.free.len() == entries.queues.len() {
            (entries.queues, entries.free) = Default::default(); // after a rush
        }
        handle
    }

    /// All queues that are here now.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        let mut queues = Vec::new();
        for shard in self.shards.iter() {
            queues.extend(lock(shard).queues.iter().flatten().cloned());
        }
        queues
    }

    /// Lets no further queue in.
    pub(crate) fn close(&self) {
        for shard in self.shards.iter() {
            lock(shard).closed = true;
        }
    }
}

#[cfg(all(test, not(background_tasks_loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_for_a_rush_are_given_back() {
        let registry = Registry::default();
        let queue = Queue::stand_alone();
        let rush: Vec<_> = (0..1_000)
            .map(|_| registry.enter(&queue).unwrap())
            .collect();
        assert_eq!(registry.queues().len(), 1_000);
        for place in rush {
            assert!(registry.leave(place).is_some());
        }
        assert_eq!(Arc::strong_count(&queue), 1);
        let place = registry.enter(&queue).unwrap();
        let shard = lock(registry.shards.this());
        assert_eq!((shard.queues.len(), shard.free.len()), (1, 0));
        drop(shard);
        assert!(registry.leave(place).is_some());
    }
}
