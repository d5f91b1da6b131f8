//! [`Repeats`]: failures of one kind, which are logged once and then summed up. Keeps a task that
//! fails at each request from flooding the log.
//!
//! 1. The first failure of a kind is logged. Those of the following `every` are counted; at its end
//!    their number is logged, and the next `every` begins. When it passes without any, the next
//!    failure is logged again.
//! 2. While failures are counted, one task of the runtime waits for the end of `every`. That it begins
//!    to wait, or no longer waits, is noted under the lock, so no failure is counted for nobody.
//! 3. Failures of one kind have the same error, too, where a subscriber reads it. There are at most
//!    [`KINDS`] kinds. When there would be more, as where each error has a number in it, the error
//!    no longer matters.
//! 4. Without a runtime no failure is counted, and each is logged.

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
    timer::elapse,
};

pub(crate) struct Repeats {
    /// Zero logs each failure.
    every: Duration,
    rows: Mutex<HashMap<Kind, Row>>,
}

/// How much of an error's text is looked at, in bytes.
const LONGEST_ERROR: usize = 1_024;

/// How many kinds with an error there are.
const KINDS: usize = 256;

/// Without an error, there are as many as the program has places that add tasks, and names for them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) level: Level,
    /// `None` for a name that was made at run time.
    pub(crate) name: Option<&'static str>,
    pub(crate) location: &'static Location<'static>,
    /// In words.
    pub(crate) end: &'static str,
    pub(crate) error: Option<String>,
}

struct Row {
    /// Failures are counted until then.
    until: Instant,
    count: u64,
    /// The task that waits for `until` has the other half, which goes with it, and with its runtime.
    waiter: Weak<()>,
}

impl Repeats {
    const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    /// How often by default.
    pub(crate) const EVERY: Duration = Duration::from_secs(10);

    pub(crate) fn new(every: Duration) -> Arc<Self> {
        Arc::new(Self {
            every: every.min(Self::FOR_EVER), // an `Instant` holds no more than some centuries
            rows: Mutex::default(),
        })
    }

    /// Returns true if a failure is to be logged now. Otherwise it is counted.
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

    /// Logs what was counted, of all kinds.
    pub(crate) fn flush(&self) {
        let kinds: Vec<_> = lock(&self.rows).keys().cloned().collect();
        for kind in kinds {
            let count = lock(&self.rows).get_mut(&kind).map(Row::take);
            report::repeated(&kind, count.unwrap_or_default());
        }
    }

    /// Logs what was counted of a kind. Returns false if there was none: nobody waits any more.
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
            return; // its drop has told what was counted
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
