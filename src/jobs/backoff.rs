//! [`Backoff`]: how long a failed job waits before its next attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// How long a failed job waits before its next attempt, for [`Jobs::retry`](crate::Jobs::retry).
/// Each pause is three times the previous one, up to a limit, and is then varied at random by up
/// to a fifth.
///
/// The default pauses are about 10 seconds, 30 seconds, 90 seconds, 4 minutes, 13 minutes,
/// 40 minutes, 2 hours, and then always 6 hours.
///
/// ```
/// use std::time::Duration;
/// use tower_background_tasks::Backoff;
///
/// let quick = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// # drop(quick);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Makes a backoff that starts at `first` and grows up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// Returns the pause after the `attempt`-th attempt.
    pub(super) fn pause(&self, attempt: usize) -> Duration {
        let failures = attempt.saturating_sub(1).try_into().unwrap_or(u32::MAX);
        let pause = self.first.saturating_mul(3_u32.saturating_pow(failures));
        pause.min(self.longest).mul_f64(0.8 + 0.4 * random())
    }
}

/// Spreads the retries of jobs that failed together, for example because a service was down.
fn random() -> f64 {
    // The standard library keys its hashers from the system's source of randomness.
    let bits = RandomState::new().hash_one(()) >> 32;
    bits as f64 / f64::from(u32::MAX)
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_secs(6 * 60 * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_seconds_to_hours() {
        let backoff = Backoff::default();
        for (attempt, seconds) in [(1, 10), (2, 30), (3, 90), (7, 7_290), (9, 21_600)] {
            for attempt in [attempt, attempt] {
                let share = backoff.pause(attempt).as_secs_f64() / f64::from(seconds);
                assert!((0.8..=1.2).contains(&share), "{attempt}: {share}");
            }
        }
        assert!(backoff.pause(usize::MAX) <= Duration::from_secs(7 * 60 * 60 + 12 * 60));
    }

    #[test]
    fn no_two_pauses_are_the_same() {
        let backoff = Backoff::default();
        assert_ne!(backoff.pause(1), backoff.pause(1));
    }

    #[test]
    fn the_longest_pause_may_be_endless() {
        let endless = Backoff::new(Duration::MAX, Duration::MAX / 2);
        assert!(endless.pause(1) > Duration::from_secs(1));
    }
}
