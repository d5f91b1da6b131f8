//! [`Repeats`]: logs the first failure of a kind and counts the others. So a task that fails in
//! each request does not flood the log.
//!
//! 1. The first failure of a kind is logged, and a period of length `every` begins. Failures
//!    within the period are counted. At the end of the period their number is logged, and the next
//!    period begins. After a period without failures, the next failure is again a first one.
//! 2. While failures of a kind are counted, one Tokio task waits for the end of the period. It
//!    starts and stops waiting under the lock, so each counted failure has a waiter.
//! 3. If a subscriber reads the error, the error's text is a part of the kind. Beyond [`KINDS`]
//!    kinds, for example if each text has another number in it, the text is ignored.
//! 4. Without a runtime, each failure is logged and none is counted.

use std::{
    collections::HashMap,
    mem,
    panic::Location,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use tracing::Level;

use super::report;
use crate::util::{
    sync::{Mutex, lock},
    text::cut,
    timer::{FOR_EVER, elapse},
};

pub(crate) struct Repeats {
    /// The length of a period. Zero logs each failure.
    every: Duration,
    rows: Mutex<HashMap<Kind, Row>>,
}

/// The longest part of an error's text that is compared, in bytes.
const LONGEST_ERROR: usize = 1_024;

/// How many kinds there may be before new kinds lose their error's text.
const KINDS: usize = 256;

/// Failures that are summed up together. Without error texts, the number of kinds is bounded by
/// the places in the program that add tasks, and by the names that they give.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) level: Level,
    /// `None` for a name that was made at run time.
    pub(crate) name: Option<&'static str>,
    pub(crate) location: &'static Location<'static>,
    /// The end in words.
    pub(crate) end: &'static str,
    pub(crate) error: Option<String>,
}

struct Row {
    /// The end of the period.
    until: Instant,
    count: u64,
    /// The task that waits for `until` holds the `Arc`. It drops the `Arc` when it ends, or when
    /// its runtime does.
    waiter: Weak<()>,
}

impl Repeats {
    /// The default period.
    pub(crate) const EVERY: Duration = Duration::from_secs(10);

    pub(crate) fn new(every: Duration) -> Arc<Self> {
        Arc::new(Self {
            every: every.min(FOR_EVER),
            rows: Mutex::default(),
        })
    }

    /// Returns true if the caller must log this failure. Otherwise this counts the failure.
    pub(crate) fn is_first(self: &Arc<Self>, mut kind: Kind) -> bool {
        let Ok(runtime) = Handle::try_current() else {
            return true;
        };
        if self.every.is_zero() {
            return true;
        }
        kind.error = kind.error.map(|error| cut(error, LONGEST_ERROR));
        let now = Instant::now();
        let mut rows = lock(&self.rows);
        if rows.len() >= KINDS && !rows.contains_key(&kind) {
            rows.retain(|_, row| row.counts(now));
            if rows.len() >= KINDS {
                kind.error = None;
            }
        }
        let Some(row) = rows.get_mut(&kind).filter(|row| row.counts(now)) else {
            rows.insert(kind, Row::new(now + self.every));
            return true;
        };
        row.count += 1;
        if row.is_awaited() {
            return false;
        }
        let (waiter, time) = (Arc::new(()), row.until.duration_since(now));
        row.waiter = Arc::downgrade(&waiter);
        drop(rows);
        runtime.spawn(log_later(Arc::downgrade(self), kind, time, waiter)); // may call a subscriber
        false
    }

    pub(crate) fn flush(&self) {
        let kinds: Vec<_> = lock(&self.rows).keys().cloned().collect();
        for kind in kinds {
            let count = lock(&self.rows).get_mut(&kind).map(Row::take);
            report::repeated(&kind, count.unwrap_or_default());
        }
    }

    /// Logs the count of a kind. Returns false if the count is zero: then the waiter must stop.
    fn log(&self, kind: &Kind) -> bool {
        let mut rows = lock(&self.rows);
        let Some(row) = rows.get_mut(kind) else {
            return false;
        };
        let count = row.take();
        if count == 0 {
            row.waiter = Weak::new();
            return false;
        }
        row.until = Instant::now() + self.every;
        drop(rows);
        report::repeated(kind, count);
        true
    }
}

async fn log_later(repeats: Weak<Repeats>, kind: Kind, mut time: Duration, _waiter: Arc<()>) {
    loop {
        elapse(time).await;
        let Some(repeats) = repeats.upgrade() else {
            return; // its drop has logged the counts
        };
        if !repeats.log(&kind) {
            return;
        }
        time = repeats.every;
    }
}

impl Row {
    fn new(until: Instant) -> Self {
        Self {
            until,
            count: 0,
            waiter: Weak::new(),
        }
    }

    fn counts(&self, now: Instant) -> bool {
        now < self.until || self.count > 0
    }

    fn is_awaited(&self) -> bool {
        self.waiter.strong_count() > 0
    }

    fn take(&mut self) -> u64 {
        mem::take(&mut self.count)
    }
}

impl Drop for Repeats {
    fn drop(&mut self) {
        self.flush();
    }
}
