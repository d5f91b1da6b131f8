//! [`Tally`]: what the cases came to, so that a run shows that everything was reached.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tower_background_tasks::Stats;

const NAMES: [&str; 15] = [
    "cases",
    "tasks",
    "completed",
    "failed",
    "panicked",
    "skipped",
    "rejected",
    "aborted",
    "holds released",
    "dropped",
    "handlers panicked",
    "were left",
    "timed out",
    "gave up",
    "shutdowns",
];

/// What is counted where it happens. The rest is known at the end of a case.
#[derive(Clone, Copy)]
pub(super) enum Event {
    HandlerPanicked = 10,
    ClientLeft = 11,
    TimedOut = 12,
    GaveUp = 13,
    Shutdown = 14,
}

#[derive(Default)]
pub(super) struct Tally([AtomicU64; NAMES.len()]);

impl Tally {
    pub(super) fn count(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Relaxed);
    }

    /// Adds a case with its holds, released and dropped.
    pub(super) fn add(&self, stats: Stats, (released, dropped): (u64, u64)) {
        let counts = [
            1,
            stats.added,
            stats.completed,
            stats.failed,
            stats.panicked,
            stats.skipped,
            stats.rejected,
            stats.aborted,
            released,
            dropped,
        ];
        for (sum, count) in self.0.iter().zip(counts) {
            sum.fetch_add(count, Relaxed);
        }
    }

    pub(super) fn cases(&self) -> u64 {
        self.0[0].load(Relaxed)
    }

    pub(super) fn has_all_but(&self, without: &[Event]) -> bool {
        let is_left_out = |index| without.iter().any(|event| *event as usize == index);
        let mut counts = self.0.iter().enumerate();
        counts.all(|(index, count)| is_left_out(index) || count.load(Relaxed) > 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (count, name)) in self.0.iter().zip(NAMES).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} {name}", count.load(Relaxed))?;
        }
        Ok(())
    }
}
