//! [`Admission`]: how many tasks run at once, over all requests. Whoever has no place waits here, in order, and costs no thread
//! and no task of the runtime.
//!
//! 1. A place is taken whole (a blocking task takes one of `max_running` and one of `max_blocking` in the same critical
//!    section), so nobody holds one while waiting for another.
//! 2. A batch waits without a place: it has given back that of its last task. So no batch waits behind itself, and adding
//!    never waits at all.
//! 3. First come, first served. Only a blocking task that wants for a place of `max_blocking` alone is passed, by async ones.
//! 4. Whoever gives back a place starts the one that now has it.

use std::{cell::RefCell, collections::VecDeque, fmt, mem};

use crate::{
    Runner,
    batch::Batch,
    sync::{Mutex, lock},
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

    /// All who wait, to be dropped.
    pub(crate) fn take_waiting(&self) -> impl Drop + use<> {
        let mut state = lock(&self.state);
        Waiting(
            mem::take(&mut state.waiting),
            mem::take(&mut state.waiting_blocking),
        )
    }

    /// One place is given back, so at most one of those who wait can start.
    fn give_back(&self, runner: &Runner, blocking: bool) {
        let mut state = lock(&self.state);
        state.running -= 1;
        state.blocking -= usize::from(blocking);
        drop(state);
        serve(runner);
    }

    /// Starts the next of those who wait, if there is a place for it.
    fn start_next(&self, runner: &Runner) {
        let mut state = lock(&self.state);
        let Some(mut batch) = state.next(self) else {
            return;
        };
        let blocking = batch.is_blocking();
        state.take_place(blocking);
        drop(state);
        batch.set_permit(Permit::new(runner, blocking));
        batch.launch();
    }
}

thread_local! {
    /// Runners that wait for a call of [`serve`] further up this thread's stack to start their next; `None` without one.
    static SERVING: RefCell<Option<Vec<Runner>>> = const { RefCell::new(None) };
}

/// Starts the next batch of `runner`. One that its runtime drops at once gives back its place, and so comes here again: in the
/// loop of the outermost call, not in a recursion as deep as the queue.
fn serve(runner: &Runner) {
    let outermost = SERVING.with_borrow_mut(|serving| match serving {
        Some(others) => {
            others.push(runner.clone());
            false
        }
        None => {
            *serving = Some(vec![runner.clone()]);
            true
        }
    });
    if !outermost {
        return;
    }
    let next = || SERVING.with_borrow_mut(|serving| serving.as_mut().and_then(Vec::pop));
    while let Some(runner) = next() {
        if let Some(admission) = runner.admission() {
            admission.start_next(&runner);
        }
    }
    SERVING.set(None);
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

    /// The one that came first, of those there is a place for.
    /// The one that came first, of those there is a place for.
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
        queue.pop_front().map(|(_, batch)| batch)
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
