//! [`Sharded`]: one value per shard. Each thread uses one shard, so threads rarely contend.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The number of shards. A loom model has one, so that its threads contend.
pub(crate) const SHARDS: usize = if cfg!(all(test, background_tasks_loom)) {
    1
} else {
    8
};

#[derive(Debug, Default)]
pub(crate) struct Sharded<T>([Lines<T>; SHARDS]);

/// Fills two cache lines, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lines<T>(T);

impl<T> Sharded<T> {
    /// Returns this thread's shard.
    #[inline]
    pub(crate) fn this(&self) -> &T {
        self.get(this_shard())
    }

    #[inline]
    pub(crate) fn get(&self, shard: usize) -> &T {
        &self.0[shard].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|lines| &lines.0)
    }
}

/// Returns this thread's shard, a number below [`SHARDS`]. Threads are assigned round robin.
#[inline]
pub(crate) fn this_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        /// Has no destructor, so it stays readable while the thread ends.
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SHARD.get().unwrap_or_else(|| {
        // The number guards no other data, so `Relaxed` is enough.
        let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
        SHARD.set(Some(shard));
        shard
    })
}
