//! [`Queue`]: one request's tasks and their state. Keeps the promises "once", "order" and "late is fine".
//!
//! ```text
//! Open ──end──▶ Running ◀──add──▶ Idle          (of a request; a queue of no request starts out Idle)
//! Open ──merge──▶ Merged                        (stand-alone; never ends by itself)
//! Open, Idle ──nobody holds it──▶ Open          (of another request: see `pool`)
//! ```
//!
//! 1. While the phase is `Running` there is exactly one [`Batch`] of the queue, or the [`Start`] of one, and it alone takes tasks
//!    out. Where tasks run concurrently each is a batch of its own, and the phase goes from `Open` to `Idle`.
//! 2. The one who turns the phase to `Running` counts that batch with the lock held, and makes and starts it afterwards.
//! 3. The phase leaves `Running` only when the batch finds no task, in the same critical section.
//! 4. `ended` is set before the phase of a request's queue leaves `Open`, and then stays.
//! 5. A task is in `tasks`, then in `currents`, and whoever takes it out of there reports its end.
//! 6. The queue is in the runner's registry while it holds a task in either.
//! 7. No user code runs under the lock: no destructor of a task, no condition, no observer.

mod add;
pub(crate) mod current;
mod cut;
mod new;
pub(crate) mod pool;
mod run;
pub(crate) mod task_list;

use std::{borrow::Cow, fmt, sync::Arc};

use tokio::time::Instant;

#[cfg(feature = "jobs")]
use crate::jobs::JobSide;
use crate::{
    OnFailure, Order, ResponseOutcome, Runner, Task, TaskId,
    executor::batch::Batch,
    executor::start::Start,
    observe::report,
    outcome::Verdict,
    queue::current::{Current, Currents, Key},
    queue::task_list::TaskList,
    shared::registry::Place,
    task::Label,
    task::request_line::RequestLine,
    util::contain::contain,
    util::sync::{Mutex, OnceLock, get_mut, lock},
};

pub(crate) struct Queue {
    /// Where the tasks run; `None` for a stand-alone queue.
    runner: Option<Runner>,
    request: RequestLine,
    /// False for a queue of no request, and where the request is not known: then `request` says nothing.
    has_request: bool,
    /// When the request arrived.
    arrived: Instant,
    /// The response may share its connection's task with others: HTTP/2, or not known.
    multiplexed: bool,
    /// Made of `ended` for the first who asks.
    outcome: OnceLock<ResponseOutcome>,
    state: Mutex<State>,
    /// What jobs added here need to know; `None` for most queues.
    #[cfg(feature = "jobs")]
    job_side: Option<Box<JobSide>>,
}

struct State {
    phase: Phase,
    /// The tasks that wait. Empty when `Merged`, and between two critical sections when `Idle`.
    tasks: TaskList,
    /// The tasks that left `tasks` and have not ended.
    currents: Currents,
    place: Option<Place>,
    /// How the response ended, and when. `None` until it has, and for good in a queue of no request.
    ended: Option<(Verdict, Instant)>,
    /// A task failed, and `OnFailure::Stop` is set: those that have not begun are skipped.
    stopped: bool,
    /// How many tasks that no runner knows were taken out, to be run by hand.
    taken: u64,
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

/// A task whose turn has come, and the key to its place among the queue's currents.
pub(crate) struct Turn {
    pub(crate) task: Task,
    pub(crate) key: Key,
}

/// What a queue has ready to run.
enum Ready {
    Start(Start),
    Batch(Batch),
}

/// What had not ended.
pub(crate) struct Left {
    currents: Currents,
    tasks: TaskList,
}

/// What a batch finds when its task has ended.
pub(crate) struct Advance {
    /// The task that ended, for the caller to report; `None` where somebody has.
    pub(crate) ended: Option<Current>,
    /// The task whose turn it is now; `None` ends the batch.
    pub(crate) next: Option<Turn>,
}

impl Queue {
    #[cfg(feature = "jobs")]
    pub(crate) fn job_side(&self) -> Option<&JobSide> {
        self.job_side.as_deref()
    }

    pub(crate) fn request(&self) -> Option<&RequestLine> {
        self.has_request.then_some(&self.request)
    }

    pub(crate) fn runner(&self) -> Option<&Runner> {
        self.runner.as_ref()
    }

    /// How the response ended. Not to be called with the lock held.
    pub(crate) fn outcome(&self) -> Option<&ResponseOutcome> {
        if let Some(outcome) = self.outcome.get() {
            return Some(outcome);
        }
        let (verdict, at) = lock(&self.state).ended?;
        let outcome = || verdict.after(at.duration_since(self.arrived));
        Some(self.outcome.get_or_init(outcome))
    }

    /// The runner, if tasks for which nothing is set may take the fast path.
    #[inline]
    pub(crate) fn plain_runner(&self) -> Option<&Runner> {
        let runner = self.plain_runner_so_far();
        runner.filter(|_| lock(&self.state).is_responded())
    }

    /// [`plain_runner`](Self::plain_runner), if there was a response.
    #[inline]
    pub(crate) fn plain_runner_so_far(&self) -> Option<&Runner> {
        let runner = self.runner.as_ref();
        runner.filter(|runner| runner.is_plain() && !runner.is_observed())
    }

    /// False where somebody has ended the task.
    pub(crate) fn is_current(&self, key: Key) -> bool {
        lock(&self.state).currents.get_mut(key).is_some()
    }

    /// Who a task is that has not ended, and when it began.
    pub(crate) fn begun(&self, key: Key) -> Option<(Label, Option<Instant>)> {
        let mut state = lock(&self.state);
        let current = state.currents.get_mut(key)?;
        let mut label = current.label.clone();
        if self.runner.is_none() {
            label.id = TaskId::NONE; // what it has is for its key alone
        }
        Some((label, current.begun))
    }

    /// Who a task is that has not ended.
    pub(crate) fn label_of(&self, key: Key) -> Option<Label> {
        self.begun(key).map(|(label, _)| label)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).stopped
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

    fn runs_concurrently(&self) -> bool {
        let order = self.runner.as_ref().map(Runner::order);
        order == Some(Order::Concurrent)
    }

    pub(crate) fn stops_on_failure(&self) -> bool {
        let on_failure = self.runner.as_ref().map(Runner::on_failure);
        on_failure == Some(OnFailure::Stop)
    }
}

impl Ready {
    #[inline(never)]
    fn launch(self) {
        match self {
            Self::Start(start) => start.launch(),
            Self::Batch(batch) => batch.start(),
        }
    }
}

impl State {
    /// There was a response, or there is none to wait for.
    #[inline]
    fn is_responded(&self) -> bool {
        self.ended.is_none_or(|(verdict, _)| verdict.is_responded())
    }

    /// The next task's turn has come: it is current from now on.
    #[inline]
    fn next_turn(&mut self, arrived: Instant) -> Option<Turn> {
        let task = self.tasks.pop()?;
        Some(self.turn_of(task, arrived))
    }

    #[inline]
    fn turn_of(&mut self, task: Task, arrived: Instant) -> Turn {
        let key = self.currents.insert(Current::new(task.label(arrived)));
        Turn { task, key }
    }

    /// [`next_turn`](Self::next_turn), of a task that begins `now` if it is async and nothing is set for it; that is what the `bool`
    /// says.
    #[inline]
    fn next_plain_turn(&mut self, arrived: Instant, now: Instant) -> Option<(Turn, bool)> {
        let task = self.tasks.pop()?;
        let blocking = task.is_blocking();
        let begins = task.is_plain() && !blocking;
        let begun = begins.then_some(now);
        // A bare label is made in the place where it stays: copied there, together with one that may have a name of its own, it stalls
        // the processor for an eighth of the time that a task takes.
        let key = if task.is_bare() {
            self.currents.insert_with(task.id(), || Current {
                begun,
                ..Current::new(task.bare_label(arrived, blocking))
            })
        } else {
            self.currents.insert(Current {
                begun,
                ..Current::new(task.label(arrived))
            })
        };
        Some((Turn { task, key }, begins))
    }
}

/// Only a stand-alone queue can still hold tasks here: no response took it, and no runner ever knew of them.
impl Drop for Queue {
    fn drop(&mut self) {
        let tasks = &get_mut(&mut self.state).tasks;
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
