//! [`Admission`]: how many tasks run at once, over all requests. Whoever has no place waits here, in order, and costs no thread
//! and no task of the runtime.
//!
//! 1. A place is taken whole (a blocking task takes one of `max_running` and one of `max_blocking` in the same critical
//!    section), so nobody holds one while waiting for another.
//! 2. A batch waits without a place: it has given back that of its last task. So no batch waits behind itself, and adding
//!    never waits at all.
//! 3. First come, first served. Only a blocking task that wants for a place of `max_blocking` alone is passed, by async ones.
//! 4. Whoever gives back a place starts the one that now has it.

use std::{cell::Cell, collections::VecDeque, fmt, mem, ptr};

use crate::{
    Runner,
    executor::batch::Batch,
    util::sync::{Mutex, lock},
    util::waiting::pop,
};

#[derive(Debug)]
pub(crate) struct Admission {
    max_running: usize,
    max_blocking: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    blocking: usize,
    /// Those who wait, each with its number in the order of coming.
    waiting: VecDeque<(u64, Batch)>,
    waiting_blocking: VecDeque<(u64, Batch)>,
    came: u64,
    /// Places that were given back by batches dropped at once, whose next has not been started.
    owed: usize,
    /// The runner has shut down: whoever would have to wait is dropped.
    closed: bool,
}

/// A place for one running task, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    runner: Runner,
    blocking: bool,
}

impl Admission {
    pub(crate) fn new(max_running: Option<usize>, max_blocking: Option<usize>) -> Self {
        Self {
            max_running: max_running.unwrap_or(usize::MAX),
            max_blocking: max_blocking.unwrap_or(usize::MAX),
            state: Mutex::default(),
        }
    }

    /// Gives the batch back with a place for its task, or keeps it until there is one, and starts it then.
    pub(crate) fn admit(&self, runner: &Runner, mut batch: Batch) -> Option<Batch> {
        let blocking = batch.is_blocking();
        let mut state = lock(&self.state);
        if !state.has_place(self, blocking) {
            if state.closed {
                drop(state);
                drop(batch);
                return None;
            }
            state.came += 1;
            let number = state.came;
            let waiting = if blocking {
                &mut state.waiting_blocking
            } else {
                &mut state.waiting
            };
            waiting.push_back((number, batch));
            return None;
        }
        state.take_place(blocking);
        drop(state);
        batch.set_permit(Permit::new(runner, blocking));
        Some(batch)
    }

    /// All who wait, to be dropped; from now on nobody waits.
    pub(crate) fn close(&self) -> impl Drop + use<> {
        let mut state = lock(&self.state);
        state.closed = true;
        Waiting(
            mem::take(&mut state.waiting),
            mem::take(&mut state.waiting_blocking),
        )
    }

    /// One place is given back, and goes to the next of those who wait: at most one of them can start.
    fn give_back(&self, runner: &Runner, blocking: bool) {
        let this = ptr::from_ref(self).addr();
        let mut state = lock(&self.state);
        state.running -= 1;
        state.blocking -= usize::from(blocking);
        if SERVING.with(Cell::get) == this {
            // A batch that its runtime dropped at once: the call further up this thread's stack goes on to the next, in a loop
            // and not in a recursion as deep as the queue.
            state.owed += 1;
            return;
        }
        let mut next = state.next(self);
        drop(state);
        let outer = SERVING.with(|serving| serving.replace(this));
        while let Some(mut batch) = next {
            batch.set_permit(Permit::new(runner, batch.is_blocking()));
            batch.launch();
            let mut state = lock(&self.state);
            if state.owed == 0 {
                break;
            }
            state.owed -= 1;
            next = state.next(self);
        }
        SERVING.with(|serving| serving.set(outer));
    }
}

#[cfg(not(all(test, background_tasks_loom)))]
thread_local! {
    /// The address of the admission whose [`give_back`](Admission::give_back) runs on this thread, or 0. It has no destructor, so
    /// it is there even while the thread ends.
    static SERVING: Cell<usize> = const { Cell::new(0) };
}

// All threads of a model are one thread of the system.
#[cfg(all(test, background_tasks_loom))]
loom::thread_local! {
    static SERVING: Cell<usize> = Cell::new(0);
}

/// Everything that waited.
struct Waiting(VecDeque<(u64, Batch)>, VecDeque<(u64, Batch)>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.clear();
        self.1.clear();
    }
}

impl State {
    fn has_place(&self, limits: &Admission, blocking: bool) -> bool {
        self.running < limits.max_running && (!blocking || self.blocking < limits.max_blocking)
    }

    fn take_place(&mut self, blocking: bool) {
        self.running += 1;
        self.blocking += usize::from(blocking);
    }

    /// Gives a place to the one that came first, of those there is one for.
    fn next(&mut self, limits: &Admission) -> Option<Batch> {
        let front = |waiting: &VecDeque<(u64, Batch)>, blocking| {
            let (number, _) = waiting.front()?;
            self.has_place(limits, blocking).then_some(*number)
        };
        let queue = match (
            front(&self.waiting, false),
            front(&self.waiting_blocking, true),
        ) {
            (None, None) => return None,
            (Some(number), Some(blocking)) if blocking < number => &mut self.waiting_blocking,
            (None, Some(_)) => &mut self.waiting_blocking,
            (Some(_), _) => &mut self.waiting,
        };
        let (_, batch) = pop(queue)?;
        self.take_place(batch.is_blocking());
        Some(batch)
    }
}

impl Permit {
    fn new(runner: &Runner, blocking: bool) -> Self {
        Self {
            runner: runner.clone(),
            blocking,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(admission) = self.runner.admission() {
            admission.give_back(&self.runner, self.blocking);
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("running", &self.running)
            .field("blocking", &self.blocking)
            .finish_non_exhaustive()
    }
}
