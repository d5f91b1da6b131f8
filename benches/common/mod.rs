//! Paired measurements: all sides of a comparison in one process, their rounds interleaved, medians
//! of the ratios within a round. So a machine that slows down for a while slows down both sides.

use std::{
    env,
    time::{Duration, Instant},
};

pub(crate) mod by_hand;
pub(crate) mod sides;

/// True where a run has only to show that it works: `BENCH_SMOKE=1`, as in CI.
pub(crate) fn is_smoke() -> bool {
    env::var_os("BENCH_SMOKE").is_some()
}

/// Rounds of a comparison.
pub(crate) fn rounds(full: usize) -> usize {
    if is_smoke() { 3 } else { full }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn time(f: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    f();
    begun.elapsed()
}

/// Counts the lines that fall short.
#[derive(Default)]
pub(crate) struct Budget {
    short: usize,
}

impl Budget {
    /// Prints a line of the budget: `value` is to be at most `limit`.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, limit: f64) {
        let holds = value <= limit;
        self.short += usize::from(!holds);
        let verdict = if holds { "holds" } else { "FALLS SHORT" };
        println!("{what:<72} {value:>8.2}  at most {limit:<5} {verdict}");
    }

    /// Prints a figure that has no limit.
    pub(crate) fn tell(&self, what: &str, value: f64) {
        println!("{what:<72} {value:>8.2}");
    }

    /// The last line of the table.
    pub(crate) fn verdict(self) {
        match self.short {
            0 => println!("the budget holds"),
            short => println!("the budget FALLS SHORT in {short} lines"),
        }
    }
}
