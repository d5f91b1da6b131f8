//! [`Registry`]: the entries that a runner must find again, to list them and to abort them at
//! shutdown.
//!
//! 1. An entry is registered while it holds a task or is followed. A thread that enters or removes
//!    an entry holds that entry's lock, so the lock order is entry, then registry. A thread that
//!    looks through the registry first copies the handles, and locks the entries afterwards.
//! 2. A closed registry admits no entry. [`enter`](Registry::enter) checks this under the shard's
//!    lock. So a thread that closes the registry and then calls [`entries`](Registry::entries)
//!    gets every admitted entry that has not left. A registered entry checks
//!    [`is_closed`](Registry::is_closed) under its own lock before it takes in more. So a thread
//!    that closes the registry and then locks an entry sees all that the entry will ever hold.

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
    /// Keyed by order of arrival.
    entries: BTreeMap<u64, Arc<T>>,
    next: u64,
}

/// Where an entry is registered.
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

    /// Removes an entry. The caller drops the returned handle once it holds no lock.
    pub(crate) fn leave(&self, place: Place) -> Option<Arc<T>> {
        let mut shard = lock(self.shards.get(place.shard));
        shard.entries.remove(&place.number)
    }

    /// Returns the entries registered now.
    pub(crate) fn entries(&self) -> Vec<Arc<T>> {
        let mut entries = Vec::new();
        for shard in self.shards.iter() {
            entries.extend(lock(shard).entries.values().cloned());
        }
        entries
    }

    /// Admits no entry from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
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
