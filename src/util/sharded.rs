//! [`Sharded`]: something that is kept in parts, of which each thread uses one, so that threads rarely meet.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// So many parts. One in a model, whose threads are to meet.
pub(crate) const SHARDS: usize = if cfg!(all(test, background_tasks_loom)) {
    1
} else {
    8
};

#[derive(Debug, Default)]
pub(crate) struct Sharded<T>([Lines<T>; SHARDS]);

/// Cache lines of its own: two, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lines<T>(T);

impl<T> Sharded<T> {
    /// This thread's part.
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

/// A number below [`SHARDS`]. Threads take turns in choosing theirs.
#[inline]
pub(crate) fn this_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        /// It has no destructor, so it is there even while the thread ends.
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SHARD.get().unwrap_or_else(|| {
        let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS; // no more than a number
        SHARD.set(Some(shard));
        shard
    })
}
