//! [`Queue`]: one request's tasks and their state. Keeps the promises "once", "order" and "late is fine".
//!
//! ```text
//! Open ──end──▶ Running ◀──add──▶ Idle          (of a request; a queue of no request starts out Idle)
//! Open ──merge──▶ Merged                        (stand-alone; never ends by itself)
//! ```
//!
//! 1. While the phase is `Running` there is exactly one [`Batch`] of the queue, and it alone takes tasks out.
//! 2. The one who turns the phase to `Running` makes that batch. It does so with the lock held, and starts it afterwards.
//! 3. The phase leaves `Running` only when the batch finds no task, in the same critical section.
//! 4. `outcome` is set before the phase leaves `Open`, and never again.
//! 5. No user code runs under the lock: no destructor of a task, no condition, no observer.

use std::{borrow::Cow, fmt, mem, panic::Location, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    ResponseOutcome, Runner, Task,
    batch::Batch,
    contain::contain,
    list::TaskList,
    report,
    sync::{Mutex, OnceLock, lock},
};

pub(crate) struct Queue {
    /// Where the tasks run; `None` for a stand-alone queue.
    runner: Option<Runner>,
    /// When the request arrived.
    arrived: Instant,
    /// How the response ended. Empty until it has, and for good in a queue of no request.
    outcome: OnceLock<ResponseOutcome>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Empty when `Idle` or `Merged`.
    tasks: TaskList,
}

enum Phase {
    /// The response has not ended: tasks wait.
    Open,
    /// A batch is on the runner.
    Running,
    /// Nothing is queued: the next task starts a batch.
    Idle,
    /// The tasks went to this queue, and so do those that are added from now on.
    Merged(Arc<Queue>),
}

impl Queue {
    /// A queue that waits to be attached to a response.
    pub(crate) fn stand_alone() -> Arc<Self> {
        Self::new(None, Phase::Open)
    }

    /// A queue that waits for a response to end.
    pub(crate) fn of_request(runner: Runner) -> Arc<Self> {
        Self::new(Some(runner), Phase::Open)
    }

    /// A queue with no response to wait for.
    pub(crate) fn of_no_request(runner: Runner) -> Arc<Self> {
        Self::new(Some(runner), Phase::Idle)
    }

    fn new(runner: Option<Runner>, phase: Phase) -> Arc<Self> {
        Arc::new(Self {
            runner,
            arrived: Instant::now(),
            outcome: OnceLock::new(),
            state: Mutex::new(State {
                phase,
                tasks: TaskList::default(),
            }),
        })
    }

    pub(crate) fn runner(&self) -> Option<&Runner> {
        self.runner.as_ref()
    }

    pub(crate) fn outcome(&self) -> Option<&ResponseOutcome> {
        self.outcome.get()
    }

    pub(crate) fn add(self: &Arc<Self>, mut task: Task, location: &'static Location<'static>) {
        task.set_added(location);
        let mut queue = Arc::clone(self);
        loop {
            let mut state = lock(&queue.state);
            match &state.phase {
                Phase::Merged(target) => {
                    let target = Arc::clone(target);
                    drop(state);
                    queue = target;
                }
                Phase::Idle => {
                    queue.count_added(&mut task);
                    state.phase = Phase::Running;
                    drop(state);
                    return Batch::new(queue, task).start();
                }
                Phase::Open | Phase::Running => {
                    queue.count_added(&mut task);
                    state.tasks.push(task);
                    return;
                }
            }
        }
    }

    /// The response has ended: what is queued goes to the runner.
    pub(crate) fn end(self: Arc<Self>, outcome: impl FnOnce(Duration) -> ResponseOutcome) {
        let elapsed = self.arrived.elapsed();
        let mut state = lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return;
        }
        // Set under the lock: whoever finds the phase past `Open` finds the outcome too.
        let _ = self.outcome.set(outcome(elapsed));
        let first = state.tasks.pop();
        state.phase = if first.is_some() {
            Phase::Running
        } else {
            Phase::Idle
        };
        drop(state);
        if let Some(task) = first {
            Batch::new(self, task).start();
        }
    }

    /// The batch's next task. `None` ends the batch.
    pub(crate) fn next(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        let next = state.tasks.pop();
        if next.is_none() {
            state.phase = Phase::Idle;
        }
        next
    }

    /// Takes a task out of a queue whose response has not ended, for whoever runs it by hand. Afterwards only a batch may.
    pub(crate) fn take(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Open => state.tasks.pop(),
            Phase::Running | Phase::Idle | Phase::Merged(_) => None,
        }
    }

    /// Moves the tasks of `from` behind this queue's own, and whatever is added to `from` later too.
    ///
    /// Does nothing if `from` is this queue, or is part of it or of another already.
    pub(crate) fn merge(self: &Arc<Self>, from: &Arc<Self>) {
        let into = self.root();
        let from = from.root();
        if Arc::ptr_eq(&into, &from) || from.runner.is_some() {
            return;
        }
        // Both at once, so that a task added to `from` meanwhile cannot overtake those that move; by address, so that two
        // merges of the same pair cannot wait for each other.
        let (mut into_state, mut from_state);
        if Arc::as_ptr(&into) < Arc::as_ptr(&from) {
            into_state = lock(&into.state);
            from_state = lock(&from.state);
        } else {
            from_state = lock(&from.state);
            into_state = lock(&into.state);
        }
        if matches!(from_state.phase, Phase::Merged(_)) {
            return;
        }
        if matches!(into_state.phase, Phase::Merged(_)) {
            drop((into_state, from_state));
            return into.merge(&from);
        }
        from_state.phase = Phase::Merged(Arc::clone(&into));
        let mut moving = mem::take(&mut from_state.tasks);
        drop(from_state);
        let mut first = None;
        while let Some(mut task) = moving.pop() {
            into.count_added(&mut task);
            if matches!(into_state.phase, Phase::Idle) {
                into_state.phase = Phase::Running;
                first = Some(task);
            } else {
                into_state.tasks.push(task);
            }
        }
        drop(into_state);
        if let Some(task) = first {
            Batch::new(into, task).start();
        }
    }

    /// Names of the tasks that wait, in order.
    pub(crate) fn names(self: &Arc<Self>) -> Vec<Cow<'static, str>> {
        lock(&self.root().state).tasks.names()
    }

    pub(crate) fn len(self: &Arc<Self>) -> usize {
        lock(&self.root().state).tasks.len()
    }

    /// The queue that this one's tasks are in.
    pub(crate) fn root(self: &Arc<Self>) -> Arc<Self> {
        let mut queue = Arc::clone(self);
        loop {
            let next = match &lock(&queue.state).phase {
                Phase::Merged(target) => Arc::clone(target),
                Phase::Open | Phase::Running | Phase::Idle => break,
            };
            queue = next;
        }
        queue
    }

    fn count_added(&self, task: &mut Task) {
        if let Some(runner) = &self.runner {
            task.set_id(runner.count_added());
        }
    }
}

/// Only a stand-alone queue can still hold tasks here: no response took it, and no runner ever knew of them.
impl Drop for Queue {
    fn drop(&mut self) {
        let tasks = mem::take(&mut lock(&self.state).tasks);
        if !tasks.is_empty() {
            let _ = contain(|| report::never_attached(&tasks.names()));
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        let phase = match state.phase {
            Phase::Open => "open",
            Phase::Running => "running",
            Phase::Idle => "idle",
            Phase::Merged(_) => "merged",
        };
        let waiting = state.tasks.len();
        drop(state); // before the formatter's own writer is called
        f.debug_struct("Queue")
            .field("phase", &phase)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}
