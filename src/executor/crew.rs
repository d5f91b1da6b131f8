//! [`Crew`]: blocking threads that share the work which waits for one.
//!
//! Waking a thread of the blocking pool takes longer than most blocking tasks. So a thread that is there takes what waits, one piece
//! after another, and looks out for more for a moment; and while one is on its way already, nobody sends for another. Under load,
//! when threads are slow to come, one wake-up serves many requests: a server does a fifth to two thirds more requests than one that
//! calls `spawn_blocking` for each.
//!
//! 1. While work waits, a thread is coming: it is on its way, or looks out, or somebody is to ask for one again. So a thread may leave
//!    at any time.
//! 2. Whoever comes and leaves work behind sends for the next thread, before it does its own work. So work waits for others to come, but
//!    not for their work to end.
//! 3. One thread at a time is on its way, unless it takes long, as others keep the pool busy: then more are sent for, and the work has
//!    as many places in the pool's queue as it would have by itself. Where the pool says that the system has no thread to give, one asks
//!    again, after a while.
//! 4. Looking out costs the processor's time: so where it was in vain, or others wanted the processor, the next times are left out,
//!    twice as many after each.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use crate::{
    util::sync::{AtomicUsize, Mutex, Ordering, lock, now, yield_now},
    util::waiting::pop,
};

/// How long a thread looks out.
const PATIENCE: Duration = if cfg!(all(test, background_tasks_loom)) {
    Duration::ZERO // in a model no time passes: it looks once
} else {
    Duration::from_micros(50)
};

/// Whoever gives way and comes back only after so long has kept somebody else waiting.
const SOMEBODY_ELSE: Duration = Duration::from_micros(10);

/// So many times are left out at most.
const LONGEST_BREAK: usize = 256;

/// A thread that is on its way for so long is slow: each time, one more is sent for. It is longer than a thread takes that is not kept
/// from coming.
const SLOW: Duration = Duration::from_millis(1);

/// Whoever was on the way for so long has come through a pool that is busy: many more are sent for.
const VERY_SLOW: Duration = Duration::from_millis(10);

/// So many at once.
const MANY: usize = 64;

pub(crate) struct Crew<T> {
    state: Mutex<State<T>>,
    /// How many times looking out is still to be left out.
    left_out: AtomicUsize,
    /// How many were left out when it was last in vain.
    last_break: AtomicUsize,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// How many threads are on their way, or look out.
    coming: usize,
    /// When the last of them was sent for, or began to look out.
    sent: Option<Instant>,
    /// One of them is to ask for a thread again, where the system had none to give. Until then nobody else does, unless a thread comes.
    asking: bool,
}

/// What a thread finds.
#[derive(Debug, PartialEq)]
pub(crate) struct Found<T> {
    pub(crate) work: Option<T>,
    /// The thread is to send for so many others, before it does the work.
    pub(crate) send: usize,
}

impl<T> Crew<T> {
    /// Puts `work` behind the rest. True where the caller is to send for a thread.
    #[must_use]
    pub(crate) fn put(&self, work: T) -> bool {
        let mut state = lock(&self.state);
        state.waiting.push_back(work);
        state.sends(now)
    }

    /// A thread is here that was sent for at `sent`.
    pub(crate) fn arrive(&self, sent: Instant) -> Found<T> {
        let now = now();
        let mut state = lock(&self.state);
        state.coming -= 1;
        state.has_a_thread();
        let work = pop(&mut state.waiting);
        let send = if now.duration_since(sent) < VERY_SLOW {
            usize::from(state.sends(|| now))
        } else {
            state.sends_many(now)
        };
        Found { work, send }
    }

    /// A thread that was sent for may never come, as the system has none to give. True where the caller is to ask it again later, and
    /// counts as coming until then; false where somebody does already.
    #[must_use]
    pub(crate) fn give_up_one(&self) -> bool {
        let mut state = lock(&self.state);
        let is_first = !mem::replace(&mut state.asking, true);
        state.coming -= usize::from(!is_first);
        is_first
    }

    /// Whoever was to ask again does so: true where it sends for a thread, as something still waits.
    #[must_use]
    pub(crate) fn asks_again(&self) -> bool {
        let mut state = lock(&self.state);
        if !mem::take(&mut state.asking) {
            return false; // a thread has come
        }
        state.sent = Some(now());
        let asks = !state.waiting.is_empty();
        state.coming -= usize::from(!asks);
        asks
    }

    /// Whoever was to ask again never will. If no other is coming, what waits is the caller's.
    #[must_use]
    pub(crate) fn stop_asking(&self) -> VecDeque<T> {
        let mut state = lock(&self.state);
        if !mem::take(&mut state.asking) {
            return VecDeque::new();
        }
        state.coming -= 1;
        state.missed()
    }

    /// What waits, to be dropped.
    pub(crate) fn take_all(&self) -> VecDeque<T> {
        mem::take(&mut lock(&self.state).waiting)
    }

    /// A thread is here after all that was given up, and does not count as coming any more.
    pub(crate) fn arrive_uncounted(&self) -> Found<T> {
        self.pass_by(now())
    }

    /// A thread will never be here. If no other is coming, what waits is the caller's.
    #[must_use]
    pub(crate) fn miss(&self) -> VecDeque<T> {
        let mut state = lock(&self.state);
        state.coming -= 1;
        state.missed()
    }

    /// The same, of a thread that was given up.
    #[must_use]
    pub(crate) fn miss_uncounted(&self) -> VecDeque<T> {
        lock(&self.state).missed()
    }

    /// The next work of a thread that has done some: what waits, or what comes within a moment.
    pub(crate) fn next(&self, now: Instant) -> Found<T> {
        let found = self.pass_by(now);
        if found.work.is_some() {
            return found;
        }
        let mut state = lock(&self.state);
        if state.coming > 0 || self.is_left_out() {
            return found;
        }
        state.send(1, now);
        drop(state);
        self.look_out()
    }

    /// A thread leaves that could do more. True where it is to send for another in its place.
    pub(crate) fn leave(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        state.has_a_thread();
        let sends = state.coming < state.waiting.len();
        if sends {
            state.send(1, now);
        }
        sends
    }

    fn pass_by(&self, now: Instant) -> Found<T> {
        let mut state = lock(&self.state);
        state.has_a_thread();
        let work = pop(&mut state.waiting);
        let send = usize::from(state.sends(|| now));
        Found { work, send }
    }

    /// Of a thread that counts as coming.
    fn look_out(&self) -> Found<T> {
        let (begun, mut wanted) = (now(), false);
        loop {
            let looked = now();
            let leaves = wanted || looked.duration_since(begun) >= PATIENCE;
            let mut state = lock(&self.state);
            if leaves || !state.waiting.is_empty() {
                state.coming -= 1;
                let work = pop(&mut state.waiting);
                let send = usize::from(state.sends(now));
                drop(state);
                self.note(work.is_some() && !wanted);
                return Found { work, send };
            }
            drop(state);
            yield_now(); // whoever has something to do goes first
            wanted |= now().duration_since(looked) > SOMEBODY_ELSE;
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

impl<T> State<T> {
    /// Whether a thread is to be sent for. It counts as coming from now on.
    fn sends(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.coming >= self.waiting.len() {
            return false;
        }
        let now = now();
        let is_slow = |sent| now.duration_since(sent) >= SLOW;
        let sends = self.coming == 0 || !self.asking && self.sent.is_none_or(is_slow);
        if sends {
            self.send(1, now);
        }
        sends
    }

    fn sends_many(&mut self, now: Instant) -> usize {
        let too_few = self.waiting.len().saturating_sub(self.coming);
        let many = too_few.min(MANY);
        self.send(many, now);
        many
    }

    /// A thread is here: others can be had as usual.
    fn has_a_thread(&mut self) {
        self.coming -= usize::from(mem::take(&mut self.asking));
    }

    fn missed(&mut self) -> VecDeque<T> {
        if self.coming > 0 {
            return VecDeque::new();
        }
        mem::take(&mut self.waiting)
    }

    fn send(&mut self, threads: usize, now: Instant) {
        self.coming += threads;
        self.sent = Some(now);
    }
}

impl<T> Default for Crew<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                coming: 0,
                sent: None,
                asking: false,
            }),
            left_out: AtomicUsize::new(0),
            last_break: AtomicUsize::new(0),
        }
    }
}

#[cfg(all(test, not(background_tasks_loom)))]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;
    use crate::util::waiting::KEPT_ROOM;

    fn found<T>(work: Option<T>, send: usize) -> Found<T> {
        Found { work, send }
    }

    #[test]
    fn one_thread_is_sent_for_at_a_time() {
        let crew = Crew::default();
        let sent = [1, 2, 3].map(|work| crew.put(work));
        assert_eq!(sent, [true, false, false]);
    }

    #[test]
    fn whoever_comes_and_leaves_work_behind_sends_for_the_next() {
        let (crew, now) = (Crew::default(), Instant::now());
        let _ = [1, 2].map(|work| crew.put(work));
        assert_eq!(crew.arrive(now), found(Some(1), 1));
        assert_eq!(crew.arrive(now), found(Some(2), 0));
        assert!(crew.put(3), "nobody is on the way any more");
    }

    #[test]
    fn while_the_one_that_was_sent_for_is_slow_each_who_passes_by_sends_for_one_more() {
        let (crew, now) = (Crew::default(), Instant::now());
        let _ = [1, 2, 3, 4].map(|work| crew.put(work));
        let later = now + SLOW + Duration::from_secs(1);
        assert_eq!(crew.next(later), found(Some(1), 1));
        assert_eq!(
            crew.next(later),
            found(Some(2), 0),
            "it was sent for just now"
        );
    }

    #[test]
    fn whoever_was_very_slow_sends_for_as_many_as_there_is_work() {
        let crew = Crew::default();
        let _ = [1, 2, 3, 4].map(|work| crew.put(work));
        let long_ago = Instant::now().checked_sub(VERY_SLOW).unwrap();
        assert_eq!(crew.arrive(long_ago), found(Some(1), 3));
    }

    #[test]
    fn who_leaves_work_behind_sends_for_another_in_its_place() {
        let (crew, now) = (Crew::default(), Instant::now());
        let _ = [1, 2, 3].map(|work| crew.put(work)); // one is on its way
        assert_eq!(crew.next(now).work, Some(1));
        assert_eq!([crew.leave(now), crew.leave(now)], [true, false]);
    }

    #[test]
    fn a_thread_that_is_there_takes_the_work_and_the_one_that_comes_finds_none() {
        let (crew, now) = (Crew::default(), Instant::now());
        assert!(crew.put(1));
        assert_eq!(crew.next(now), found(Some(1), 0));
        assert!(!crew.put(2), "one is still on its way");
        assert_eq!(crew.next(now), found(Some(2), 0));
        assert_eq!(crew.next(now), found(None, 0));
        assert!(!crew.is_left_out(), "it looked out, though one is coming");
        assert_eq!(crew.arrive(now), found(None, 0));
    }

    #[test]
    fn what_waits_for_threads_that_never_come_is_given_back_by_the_last_of_them() {
        let (crew, now) = (Crew::default(), Instant::now());
        let _ = [1, 2, 3].map(|work| crew.put(work));
        assert!(crew.leave(now), "two are on their way");
        assert!(crew.miss().is_empty());
        assert_eq!(crew.miss(), [1, 2, 3]);
        assert!(crew.put(4), "the next one sends for a thread again");
    }

    #[test]
    fn one_that_is_given_up_may_come_or_not() {
        let crew = Crew::default();
        assert!(crew.put(1));
        assert!(crew.give_up_one(), "nobody asks yet");
        assert!(!crew.put(2), "one asks");
        assert_eq!(crew.arrive_uncounted(), found(Some(1), 1));
        assert!(!crew.asks_again() && crew.stop_asking().is_empty());
        assert!(!crew.put(3), "the one that was sent for is on its way");
        assert!(crew.miss_uncounted().is_empty());
        assert_eq!(crew.miss(), [2, 3]);
    }

    #[test]
    fn while_one_asks_again_nobody_else_does() {
        let crew = Crew::default();
        assert!(crew.put(1) && crew.give_up_one());
        thread::sleep(2 * SLOW);
        assert!(!crew.put(2));
        assert!(crew.asks_again(), "both wait");
        assert!(!crew.put(3), "one was sent for just now");
        assert!(crew.give_up_one(), "in vain");
        assert_eq!(crew.stop_asking(), [1, 2, 3]);
        assert!(crew.put(3) && crew.give_up_one(), "another begins anew");
        assert_eq!(crew.take_all(), [3]);
        assert!(!crew.asks_again(), "nothing waits");
        assert_eq!(lock(&crew.state).coming, 0);
    }

    #[test]
    fn who_looks_out_has_what_is_put_in_meanwhile() {
        let crew = Arc::new(Crew::default());
        let looking = Arc::clone(&crew);
        let thread = thread::spawn(move || {
            loop {
                if let Some(work) = looking.next(Instant::now()).work {
                    return work;
                }
            }
        });
        while lock(&crew.state).coming == 0 {
            yield_now();
        }
        let _ = crew.put(7); // it may have gone just now
        assert_eq!(thread.join().unwrap(), 7);
    }

    #[test]
    fn room_for_a_rush_is_given_back() {
        let crew = Crew::default();
        for work in 0..10_000 {
            let _ = crew.put(work);
        }
        while crew.next(Instant::now()).work.is_some() {}
        assert!(lock(&crew.state).waiting.capacity() <= KEPT_ROOM);
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
