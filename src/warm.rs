//! [`Warm`]: blocking threads that look out for the next batch for a moment, so that nobody has to wake one.
//!
//! Waking a thread of the blocking pool takes longer than most requests, and many blocking tasks are short. While they keep coming,
//! a thread that has just ended one finds the next within [`PATIENCE`].
//!
//! 1. Who gives work to a thread has seen it look out, and is the only one to give it something.
//! 2. A thread that has stopped looking out is given nothing. What it was given before, it takes.
//! 3. Looking out costs the processor's time: so where it was in vain, or others wanted the processor, the next times are left out,
//!    twice as many after each.

use std::{
    array,
    time::{Duration, Instant},
};

use crate::sync::{AtomicUsize, Mutex, Ordering, lock, yield_now};

/// How long a thread looks out.
const PATIENCE: Duration = if cfg!(all(test, background_tasks_loom)) {
    Duration::ZERO // in a model no time passes
} else {
    Duration::from_micros(50)
};

/// Whoever gives way and comes back only after so long has kept somebody else waiting.
const SOMEBODY_ELSE: Duration = Duration::from_micros(10);

/// So many threads of a runner look out at once.
const SEATS: usize = 2;

/// So many times are left out at most.
const LONGEST_BREAK: usize = 256;

pub(crate) struct Warm<T> {
    seats: [Seat<T>; SEATS],
    /// How many times are still to be left out.
    left_out: AtomicUsize,
    /// How many were left out when it was last in vain.
    last_break: AtomicUsize,
}

/// A place for one thread that looks out.
struct Seat<T> {
    /// Free → looking out → being given → given → free, or from looking out back to free.
    state: AtomicUsize,
    given: Mutex<Option<T>>,
}

const FREE: usize = 0;
const LOOKING_OUT: usize = 1;
const BEING_GIVEN: usize = 2;
const GIVEN: usize = 3;

impl<T> Warm<T> {
    /// Gives `work` to a thread that looks out, or back where there is none.
    pub(crate) fn give(&self, work: T) -> Result<(), T> {
        let seat = self
            .seats
            .iter()
            .find(|seat| seat.turn(LOOKING_OUT, BEING_GIVEN));
        let Some(seat) = seat else { return Err(work) };
        *lock(&seat.given) = Some(work);
        seat.state.store(GIVEN, Ordering::SeqCst);
        Ok(())
    }

    /// Looks out for work.
    pub(crate) fn look_out(&self) -> Option<T> {
        if self.is_left_out() {
            return None;
        }
        let seat = self
            .seats
            .iter()
            .find(|seat| seat.turn(FREE, LOOKING_OUT))?;
        let (work, paid) = seat.look_out();
        self.note(paid);
        work
    }

    /// These counts are a rule of thumb: threads that change them at the same time do no harm.
    fn is_left_out(&self) -> bool {
        let left = self.left_out.load(Ordering::Relaxed);
        if left > 0 {
            self.left_out.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    fn note(&self, paid: bool) {
        let last = self.last_break.load(Ordering::Relaxed);
        let next = if paid {
            0
        } else {
            (last * 2).clamp(1, LONGEST_BREAK)
        };
        self.last_break.store(next, Ordering::Relaxed);
        self.left_out.store(next, Ordering::Relaxed);
    }
}

impl<T> Seat<T> {
    fn turn(&self, from: usize, to: usize) -> bool {
        // A look first spares others the cache line. Not in a model: loom does not try what else such a look could see.
        let looks = !cfg!(all(test, background_tasks_loom));
        if looks && self.state.load(Ordering::Relaxed) != from {
            return false;
        }
        let turned = self
            .state
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        turned.is_ok()
    }

    /// What came, and whether looking out has paid: something came, and nobody else wanted the processor.
    fn look_out(&self) -> (Option<T>, bool) {
        let (begun, mut wanted) = (Instant::now(), false);
        while self.state.load(Ordering::SeqCst) != GIVEN {
            let waited = begun.elapsed();
            if (wanted || waited >= PATIENCE) && self.turn(LOOKING_OUT, FREE) {
                return (None, false);
            }
            yield_now(); // whoever has something to do goes first
            wanted |= begun.elapsed().saturating_sub(waited) > SOMEBODY_ELSE;
        }
        let work = lock(&self.given).take();
        self.state.store(FREE, Ordering::SeqCst);
        (work, !wanted)
    }
}

impl<T> Default for Warm<T> {
    fn default() -> Self {
        let seat = || Seat {
            state: AtomicUsize::new(FREE),
            given: Mutex::new(None),
        };
        Self {
            seats: array::from_fn(|_| seat()),
            left_out: AtomicUsize::new(0),
            last_break: AtomicUsize::new(0),
        }
    }
}

#[cfg(all(test, not(background_tasks_loom)))]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn nobody_looks_out_and_it_comes_back() {
        assert_eq!(Warm::default().give(1), Err(1));
    }

    #[test]
    fn whoever_looks_out_has_it_and_the_next_comes_back() {
        let warm = Arc::new(Warm::default());
        let looking = Arc::clone(&warm);
        let thread = thread::spawn(move || {
            loop {
                if let Some(work) = looking.look_out() {
                    return work;
                }
            }
        });
        while warm.give(7).is_err() {
            yield_now();
        }
        assert_eq!(thread.join().unwrap(), 7);
        assert_eq!(warm.give(8), Err(8));
    }

    #[test]
    fn after_a_time_in_vain_more_and_more_are_left_out() {
        let warm = Warm::<()>::default();
        let mut breaks = Vec::new();
        for _ in 0..10 {
            assert!(!warm.is_left_out());
            warm.note(false);
            let mut left_out = 0;
            while warm.is_left_out() {
                left_out += 1;
            }
            breaks.push(left_out);
        }
        assert_eq!(breaks, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        warm.note(true);
        assert!(!warm.is_left_out());
    }
}
