//! [`Queue`]: one request's tasks and their state. Keeps the promises "once", "order", "late is fine" and "nothing disappears".
//!
//! This room decides when a task's turn comes and who tells its end. It uses `shared` and below. Whoever runs the tasks is
//! reached through [`Schedule`](owner::Schedule) alone.
//!
//! ```text
//! Open ──end──▶ Running ◀──add──▶ Idle          (of a request; a queue of no request begins Idle)
//! Open ──merge──▶ Merged                        (stand-alone; never ends by itself)
//! ```
//!
//! 1. While the phase is `Running` there is exactly one [`Ready`](ready::Ready) for the whole queue, and it alone takes tasks
//!    out of `tasks`.
//! 2. Whoever turns the phase to `Running` counts that batch with the lock held, and schedules it afterwards.
//! 3. The phase leaves `Running` only when no task is found, in the same critical section.
//! 4. `outcome` is set before the phase of a request's queue leaves `Open`, and then stays.
//! 5. A task is in `tasks`, then in `entries`, until its end has been told and counted.
//! 6. Whoever turns an entry to `Ended` with the lock held tells its end, and nobody else does. An end that nobody is told of
//!    is counted in the critical section that takes the entry out.
//! 7. The queue is in the registry while it holds a task in either.
//! 8. No user code runs under the lock: no destructor of a task or waker, no condition, no observer, no subscriber.

mod abort;
mod add;
mod cancel;
pub(crate) mod claim;
mod condition;
pub(crate) mod dequeued;
mod entries;
mod merge;
mod new;
pub(crate) mod owner;
mod progress;
pub(crate) mod ready;
mod task_list;

use std::{borrow::Cow, fmt, sync::Arc};

use http::{Extensions, StatusCode};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    entries::{Entries, Entry, State as EntryState},
    owner::Owner,
    task_list::TaskList,
};
#[cfg(feature = "tracing")]
use crate::observe::span::SpanRelation;
use crate::{
    ResponseEnd, ResponseOutcome,
    observe::{info::TaskInfo, report},
    shared::{
        registry::Place,
        settings::{OnFailure, Order, Settings},
    },
    task::{
        context::{ContextSource, TaskContext},
        end::TaskEnd,
        id::TaskId,
        label::Label,
        request_line::RequestLine,
    },
    util::{
        contain::contain,
        sync::{Mutex, MutexGuard, OnceLock, lock},
    },
};

pub(crate) struct Queue {
    /// The runner that its tasks are run by; `None` for a stand-alone queue.
    owner: Option<Arc<Owner>>,
    /// The runtime on which it was made.
    runtime: Option<Handle>,
    /// `None` for a queue of no request, and where the request is not known.
    request: Option<RequestLine>,
    /// When the request arrived.
    arrived: Instant,
    /// The response may share its connection's task with others: HTTP/2, or not known.
    multiplexed: bool,
    /// How the response ended. Not set until it has, and never in a queue of no request.
    outcome: OnceLock<ResponseOutcome>,
    /// What a room above wants to know of the request.
    #[cfg_attr(
        not(feature = "jobs"),
        expect(dead_code, reason = "there is no room above that asks")
    )]
    extensions: Extensions,
    /// Tells stand-alone queues apart; 0 for all others.
    serial: u64,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// The tasks that wait. Empty when `Merged`, and between two critical sections when `Idle`.
    tasks: TaskList,
    /// The tasks that left `tasks` and whose ends have not been told and counted.
    entries: Entries,
    /// `Some` while the queue is in the registry.
    place: Option<Place>,
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

/// A task has ended; for [`Queue::settle`] to count.
pub(crate) struct Ended {
    pub(crate) id: TaskId,
    pub(crate) end: TaskEnd,
    /// The one who has this has claimed the task and told its end.
    pub(crate) told: bool,
}

impl Queue {
    #[cfg(feature = "jobs")]
    pub(crate) fn owner(&self) -> Option<&Arc<Owner>> {
        self.owner.as_ref()
    }

    #[inline]
    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.owner.as_ref().map(|owner| &owner.shared.settings)
    }

    /// What a room above has noted of the request.
    #[cfg(feature = "jobs")]
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Where a batch is to run: on the runtime that is set, or else the current one, or else that of the request, or else the
    /// first that the runner has seen.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        let set = self
            .settings()
            .and_then(|settings| settings.runtime.clone());
        set.or_else(|| Handle::try_current().ok())
            .or_else(|| self.runtime.clone())
            .or_else(|| self.owner.as_ref()?.first_runtime())
    }

    /// The response has ended: what is queued goes to the runner.
    pub(crate) fn end(
        self: Arc<Self>,
        end: ResponseEnd,
        status: Option<StatusCode>,
        body_bytes: u64,
    ) {
        // Of a queue that nobody else holds, not even the registry, nobody can ask how the response went.
        if Arc::strong_count(&self) == 1 {
            return;
        }
        let outcome = ResponseOutcome {
            end,
            status,
            body_bytes,
            elapsed: self.arrived.elapsed(),
        };
        let mut state = lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return;
        }
        let _ = self.outcome.set(outcome);
        if state.tasks.is_empty() {
            state.phase = Phase::Idle;
            return;
        }
        let ready = self.make_ready(&mut state);
        drop(state);
        // Over HTTP/1 hyper writes what is left within the poll that ends the body.
        let yields = self.multiplexed;
        self.schedule(ready, yields);
    }

    /// The task's entry, unless somebody has told its end.
    fn current<'a>(state: &'a mut MutexGuard<'_, State>, id: TaskId) -> Option<&'a mut Entry> {
        state.entries.get_mut(id).filter(|entry| entry.is_current())
    }

    /// False where somebody has told the task's end.
    pub(crate) fn is_current(&self, id: TaskId) -> bool {
        Self::current(&mut lock(&self.state), id).is_some()
    }

    /// Who a task is that has not ended.
    pub(crate) fn label_of(&self, id: TaskId) -> Option<Label> {
        let mut label = Self::current(&mut lock(&self.state), id)?.label.clone();
        if self.owner.is_none() {
            label.id = TaskId::NONE; // what it has is for its entry alone
        }
        Some(label)
    }

    /// For a task that wants one.
    pub(crate) fn context_of(self: &Arc<Self>, id: TaskId) -> TaskContext {
        let label = self.label_of(id);
        let name = label.map(|label| label.name()).unwrap_or_default();
        TaskContext::new(Arc::clone(self) as Arc<dyn ContextSource>, name)
    }

    /// Rows for the tasks that are in the queue now.
    pub(crate) fn infos(&self, now: Instant) -> Vec<TaskInfo> {
        let state = lock(&self.state);
        let request = self.request.as_ref();
        let entries = state.entries.iter().map(|entry| entry.info(request, now));
        let waiting = state.tasks.labels().into_iter();
        entries
            .chain(waiting.map(|label| TaskInfo::new(&label, None, request, now)))
            .collect()
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

    #[inline]
    pub(crate) fn is_concurrent(&self) -> bool {
        let order = self.settings().map(|settings| settings.order);
        order == Some(Order::Concurrent)
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn span_relation(&self) -> SpanRelation {
        let settings = self.settings();
        settings
            .map(|settings| settings.span_relation)
            .unwrap_or_default()
    }

    fn stops_on_failure(&self) -> bool {
        let on_failure = self.settings().map(|settings| settings.on_failure);
        on_failure == Some(OnFailure::Stop)
    }

    /// Leaves the registry when there is nothing left to name. What comes back is the registry's handle, for the caller to drop
    /// behind the lock.
    #[inline]
    fn leave_if_empty(&self, state: &mut State) -> Option<Arc<Self>> {
        if !state.tasks.is_empty() || !state.entries.is_empty() {
            return None;
        }
        let (place, owner) = (state.place.take()?, self.owner.as_ref()?);
        owner.queues.leave(place)
    }
}

impl ContextSource for Queue {
    fn outcome(&self) -> Option<&ResponseOutcome> {
        self.outcome.get()
    }

    fn closing(&self) -> Option<&CancellationToken> {
        self.owner.as_ref().map(|owner| &owner.shared.closing)
    }

    fn request(&self) -> Option<&RequestLine> {
        self.request.as_ref()
    }
}

/// Only a stand-alone queue can still hold tasks here: no response took it, and no runner ever knew of them.
impl Drop for Queue {
    fn drop(&mut self) {
        let tasks = &lock(&self.state).tasks;
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
