//! [`Registry`]: what a runner has to be able to find again, so that it can be named, and aborted at shutdown.
//!
//! 1. An entry is here from its first task until it has none, and it enters and leaves with its own lock held. So the order is
//!    entry, then registry; who looks through the registry takes what it holds out first, and locks the entries afterwards.
//! 2. Once closed, it lets nobody in. Closing takes each shard's lock, so whoever was let in before is seen by the one who
//!    closed it. An entry that is in asks [`is_closed`](Registry::is_closed) with its lock held before it takes more in: so the
//!    one who closed the registry and locks it then has all that it will ever have.

use std::{collections::BTreeMap, sync::Arc};

use crate::util::{
    sharded::{Sharded, this_shard},
    sync::{AtomicBool, Mutex, Ordering, lock},
};

pub(crate) struct Registry<T> {
    closed: AtomicBool,
    shards: Sharded<Mutex<Shard<T>>>,
}

struct Shard<T> {
    /// By the number of each in the order of coming.
    entries: BTreeMap<u64, Arc<T>>,
    next: u64,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    shard: usize,
    number: u64,
}

/// The registry is closed.
#[derive(Debug)]
pub(crate) struct Closed;

impl<T> Registry<T> {
    pub(crate) fn enter(&self, entry: &Arc<T>) -> Result<Place, Closed> {
        let index = this_shard();
        let shard = &mut *lock(self.shards.get(index));
        if self.is_closed() {
            return Err(Closed);
        }
        let number = shard.next;
        shard.next += 1;
        shard.entries.insert(number, Arc::clone(entry));
        let shard = index;
        Ok(Place { shard, number })
    }

    /// Gives back the registry's handle, for the caller to drop when it holds no lock.
    pub(crate) fn leave(&self, place: Place) -> Option<Arc<T>> {
        let mut shard = lock(self.shards.get(place.shard));
        shard.entries.remove(&place.number)
    }

    /// All that are here now.
    pub(crate) fn entries(&self) -> Vec<Arc<T>> {
        let mut entries = Vec::new();
        for shard in self.shards.iter() {
            entries.extend(lock(shard).entries.values().cloned());
        }
        entries
    }

    /// Lets nobody in from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for shard in self.shards.iter() {
            drop(lock(shard));
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            closed: AtomicBool::new(false),
            shards: Sharded::default(),
        }
    }
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            next: 0,
        }
    }
}
