//! [`KeptOpen`]: connections that a shutdown waits for.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{
    observe::open_connection::OpenConnection,
    util::sync::{AtomicUsize, Mutex, Ordering, lock},
};

#[derive(Default)]
pub(crate) struct KeptOpen {
    /// Readers load this before the task counters. A connection's tasks are counted before its
    /// guard is dropped.
    count: AtomicUsize,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    /// Keyed by the connection's number.
    kept: BTreeMap<u64, OpenConnection>,
    next: u64,
}

impl KeptOpen {
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Adds a connection and returns its number.
    pub(super) fn insert(&self, connection: OpenConnection) -> u64 {
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut rows = lock(&self.rows);
        rows.next += 1;
        let number = rows.next;
        rows.kept.insert(number, connection);
        number
    }

    pub(super) fn remove(&self, number: u64) {
        let row = lock(&self.rows).kept.remove(&number);
        drop(row);
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns the connections that are kept open now, keyed by number.
    pub(super) fn rows(&self) -> BTreeMap<u64, OpenConnection> {
        let mut kept = lock(&self.rows).kept.clone();
        let now = Instant::now();
        kept.values_mut().for_each(|row| row.closed = Some(now));
        kept
    }
}
