//! [`Crew`]: blocking threads that share the work which waits for one.
//!
//! Waking a thread of the blocking pool takes longer than most blocking tasks. So a thread that is there takes what waits, one piece
//! after another, and looks out for more for a moment; and while one is on its way already, nobody sends for another. Under load,
//! when threads are slow to come, one wake-up serves many requests: a server does half as many requests again as one that calls
//! `spawn_blocking` for each.
//!
//! 1. While work waits, a thread is expected, which takes it: it is on its way, or looks out. So a thread may leave at any time.
//! 2. Whoever comes and leaves work behind sends for the next thread, before it does its own work. So no work waits for other work to
//!    end.
//! 3. Looking out costs the processor's time: so where it was in vain, or others wanted the processor, the next times are left out,
//!    twice as many after each.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    sync::{AtomicUsize, Mutex, Ordering, lock, yield_now},
    waiting::Waiting,
};

/// How long a thread looks out.
const PATIENCE: Duration = if cfg!(all(test, background_tasks_loom)) {
    Duration::ZERO // in a model no time passes
} else {
    Duration::from_micros(50)
};

/// Whoever gives way and comes back only after so long has kept somebody else waiting.
const SOMEBODY_ELSE: Duration = Duration::from_micros(10);

/// So many times are left out at most.
const LONGEST_BREAK: usize = 256;

pub(crate) struct Crew<T> {
    waiting: Mutex<Waiting<T>>,
    /// How many times looking out is still to be left out.
    left_out: AtomicUsize,
    /// How many were left out when it was last in vain.
    last_break: AtomicUsize,
}

/// What a thread finds.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) work: Option<T>,
    /// The thread is to send for another, before it does the work.
    pub(crate) send: bool,
}

impl<T> Crew<T> {
    /// Puts `work` behind the rest. True where the caller is to send for a thread.
    #[must_use]
    pub(crate) fn put(&self, work: T) -> bool {
        let mut waiting = lock(&self.waiting);
        waiting.push(work);
        waiting.sends()
    }

    /// A thread that was sent for is here.
    pub(crate) fn arrive(&self) -> Found<T> {
        Found::of(&mut lock(&self.waiting))
    }

    /// The thread that was sent for will never be here: what waits is the caller's.
    #[must_use]
    pub(crate) fn miss(&self) -> VecDeque<T> {
        lock(&self.waiting).missed()
    }

    /// The next work of a thread that has done some: what waits, or what comes within a moment.
    pub(crate) fn next(&self) -> Found<T> {
        let mut waiting = lock(&self.waiting);
        let work = waiting.pop();
        if work.is_some() || waiting.is_expected() || self.is_left_out() {
            return Found { work, send: false };
        }
        waiting.expect();
        drop(waiting);
        self.look_out()
    }

    /// Of a thread that is expected.
    fn look_out(&self) -> Found<T> {
        let (begun, mut wanted) = (Instant::now(), false);
        loop {
            let waited = begun.elapsed();
            let leaves = wanted || waited >= PATIENCE;
            let mut waiting = lock(&self.waiting);
            if leaves || !waiting.is_empty() {
                let found = Found::of(&mut waiting);
                drop(waiting);
                self.note(found.work.is_some() && !wanted);
                return found;
            }
            drop(waiting);
            yield_now(); // whoever has something to do goes first
            wanted |= begun.elapsed().saturating_sub(waited) > SOMEBODY_ELSE;
        }
    }

    /// These counts are a rule of thumb: threads that change them at the same time do no harm.
    fn is_left_out(&self) -> bool {
        let left = self.left_out.load(Ordering::Relaxed);
        if left > 0 {
            self.left_out.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    /// Looking out has paid if something came and nobody else wanted the processor.
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

impl<T> Found<T> {
    /// By the one who was expected.
    fn of(waiting: &mut Waiting<T>) -> Self {
        waiting.arrived();
        let work = waiting.pop();
        let send = waiting.sends();
        Self { work, send }
    }
}

impl<T> Default for Crew<T> {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
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
    fn one_thread_is_sent_for_at_a_time() {
        let crew = Crew::default();
        let sent = [1, 2, 3].map(|work| crew.put(work));
        assert_eq!(sent, [true, false, false]);
    }

    #[test]
    fn whoever_comes_and_leaves_work_behind_sends_for_the_next() {
        let crew = Crew::default();
        let _ = [1, 2].map(|work| crew.put(work));
        let found = [crew.arrive(), crew.arrive()].map(|found| (found.work, found.send));
        assert_eq!(found, [(Some(1), true), (Some(2), false)]);
        assert!(crew.put(3), "nobody is on the way any more");
    }

    #[test]
    fn a_thread_that_is_there_takes_the_work_and_the_one_that_comes_finds_none() {
        let crew = Crew::default();
        assert!(crew.put(1));
        assert_eq!(crew.next().work, Some(1));
        assert!(!crew.put(2), "one is still on its way");
        assert_eq!(crew.next().work, Some(2));
        let found = crew.arrive();
        assert_eq!((found.work, found.send), (None, false));
    }

    #[test]
    fn what_waits_for_a_thread_that_never_comes_is_given_back() {
        let crew = Crew::default();
        let _ = [1, 2].map(|work| crew.put(work));
        assert_eq!(crew.miss(), [1, 2]);
        assert!(crew.put(3), "the next one sends for a thread again");
    }

    #[test]
    fn who_looks_out_has_what_is_put_in_meanwhile_and_nobody_sends_for_another() {
        let crew = Arc::new(Crew::default());
        let looking = Arc::clone(&crew);
        let thread = thread::spawn(move || {
            loop {
                if let Some(work) = looking.next().work {
                    return work;
                }
            }
        });
        while !lock(&crew.waiting).is_expected() {
            yield_now();
        }
        let _ = crew.put(7); // it may have gone just now
        assert_eq!(thread.join().unwrap(), 7);
    }

    #[test]
    fn after_a_time_in_vain_more_and_more_are_left_out() {
        let crew = Crew::<()>::default();
        let mut breaks = Vec::new();
        for _ in 0..10 {
            assert!(!crew.is_left_out());
            crew.note(false);
            let mut left_out = 0;
            while crew.is_left_out() {
                left_out += 1;
            }
            breaks.push(left_out);
        }
        assert_eq!(breaks, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        crew.note(true);
        assert!(!crew.is_left_out());
    }
}
