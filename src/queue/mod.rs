//! [`Queue`]: one request's tasks and their state. Keeps the promises "once", "order", "late is
//! fine" and "nothing disappears".
//!
//! This room decides when a task is dequeued and which party reports its end. It uses `shared` and
//! below. It reaches the executor only through [`Schedule`](owner::Schedule).
//!
//! ```text
//! Open ──end──▶ Running ◀──add──▶ Idle      (of a request; without tasks, the end leads to Idle)
//!                                           (a queue of no request begins Idle)
//! Open ──merge──▶ Merged                    (stand-alone or held; never ends by itself)
//! Open ──discard──▶ Discarded               (held, and not released)
//! Recording                                 (of a runner that records; never leaves it)
//! ```
//!
//! 1. While the phase is `Running`, exactly one [`Ready`](ready::Ready) owns the queue. Only that
//!    one dequeues tasks to run them. A concurrent queue also has one `Ready` for each dequeued
//!    task. A canceller or a shutdown takes a task out only to end it.
//! 2. The thread that sets the phase to `Running` counts that batch under the lock. It schedules
//!    the batch after it releases the lock.
//! 3. The phase leaves `Running` only in the critical section that finds `tasks` empty.
//! 4. `outcome` is set before the phase of a request's queue leaves `Open`, and never changes.
//! 5. A task is in `tasks`, then in `entries`, until its end has been reported and counted. A task
//!    that is refused, or added to a discarded or recording queue, ends at once and is in neither.
//!    A task that timed out on its blocking thread stays in `entries` until the thread returns.
//! 6. Only the party that sets an entry to `Ended`, under the lock, reports the end. An end that
//!    nobody observes is counted in the critical section that removes the entry.
//! 7. A queue with an owner is in the registry while `tasks` or `entries` holds a task. A followed
//!    queue also stays there until its response has ended.
//! 8. No user code runs under the lock: no destructor of a task or waker, no condition, no
//!    observer, no subscriber.

mod abort;
mod add;
mod cancel;
pub(crate) mod claim;
mod condition;
pub(crate) mod dequeued;
mod entries;
#[cfg(feature = "dashboard")]
mod first_rows;
mod hold;
mod merge;
mod new;
pub(crate) mod open;
pub(crate) mod owner;
mod places;
mod progress;
pub(crate) mod ready;
mod record;
pub(crate) mod seen;
mod slow_response;
mod task_list;
pub(crate) mod waiting;

use std::{borrow::Cow, fmt, mem, sync::Arc};

use http::Extensions;
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    entries::{Entries, Entry, EntryState},
    open::Followed,
    owner::Owner,
    seen::Seen,
    task_list::TaskList,
};
#[cfg(feature = "tracing")]
use crate::observe::span::SpanRelation;
use crate::{
    ResponseOutcome,
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
        request_info::RequestInfo,
    },
    util::{
        contain::{contain, contain_drop},
        sync::{Mutex, MutexGuard, OnceLock, lock},
    },
};

pub(crate) struct Queue {
    /// The runner that runs the tasks. `None` for a queue that no runner owns.
    owner: Option<Arc<Owner>>,
    /// The runtime on which the queue was made. `None` without an owner, outside a runtime, and if
    /// the settings name a runtime.
    runtime: Option<Handle>,
    /// The request. `None` for a queue of no request, and where the request is unknown.
    request: Option<RequestInfo>,
    /// When the queue was made. For a request, this is its arrival.
    arrived: Instant,
    /// True if the connection's task may also serve other responses: over HTTP/2, or if the
    /// version is unknown.
    multiplexed: bool,
    /// How the response ended. Set once, when it ends. Never set in a queue of no request.
    outcome: OnceLock<ResponseOutcome>,
    /// The values captured from the request.
    extensions: Extensions,
    /// True for a queue made by [`held`](Self::held), even after its release.
    is_held: bool,
    /// True for a queue of shielded work. That work is part of its handler, so the runner's limits
    /// and timeout do not apply.
    is_shielded: bool,
    /// `Some` if the queue is followed until its response ends.
    seen: Option<Box<Seen>>,
    /// Orders the locks of two stand-alone or held queues. 0 for all others.
    serial: u64,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// The waiting tasks. Empty when `Merged`. When `Idle`, empty between critical sections.
    tasks: TaskList,
    /// The tasks that have left `tasks`, until their ends have been reported and counted.
    entries: Entries,
    /// `Some` while the queue is in the registry.
    place: Option<Place>,
    /// True once a task has failed under `OnFailure::Stop`. Tasks that have not begun are then
    /// skipped.
    stopped: bool,
    /// How many tasks `take_by_hand` has numbered. Used only without an owner.
    taken: u64,
    /// `Some` while the queue is followed: from its request's arrival until its response has
    /// ended.
    followed: Option<Followed>,
    /// True once the log has warned that the response stays open.
    is_warned_of: bool,
}

enum Phase {
    /// The response has not ended, or held tasks are not released. Tasks wait.
    Open,
    /// A batch dequeues the tasks.
    Running,
    /// No task waits. The next task starts a batch.
    Idle,
    /// The tasks have moved to this other queue. Tasks added later go there too.
    Merged(Arc<Queue>),
    /// The queue was held and not released. Added tasks are skipped.
    Discarded,
    /// The runner records. Added tasks are recorded and skipped.
    Recording,
}

/// A task that has ended, for [`Queue::settle`] to count.
pub(crate) struct Ended {
    pub(crate) id: TaskId,
    pub(crate) end: TaskEnd,
    /// True if the holder has claimed the task and reported its end.
    pub(crate) told: bool,
}

impl Queue {
    pub(crate) fn owner(&self) -> Option<&Arc<Owner>> {
        self.owner.as_ref()
    }

    #[inline]
    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.owner.as_ref().map(|owner| &owner.shared.settings)
    }

    /// Returns the runtime for a batch, and another in case the first is gone. The candidates, in
    /// order, are the queue's own runtime, and the current one or else the first that the runner
    /// saw. A runtime in the settings is the only candidate.
    pub(crate) fn runtimes(&self) -> (Option<Handle>, Option<Handle>) {
        if let Some(set) = self
            .settings()
            .and_then(|settings| settings.runtime.clone())
        {
            return (Some(set), None);
        }
        let current = Handle::try_current().ok();
        let other = current.or_else(|| self.owner.as_ref()?.first_runtime());
        match self.runtime.clone() {
            Some(own) => (Some(own), other),
            None => (other, None),
        }
    }

    /// Records how the response ended and how long it took, and schedules the waiting tasks. A
    /// second call changes nothing.
    pub(crate) fn end(self: Arc<Self>, mut outcome: ResponseOutcome) {
        // No other handle to this queue exists, not even in the registry. So it has no tasks, and
        // nothing can ask for the outcome.
        if Arc::strong_count(&self) == 1 {
            return;
        }
        outcome.elapsed = self.arrived.elapsed();
        let _followed; // dropped after the lock
        let mut state = lock(&self.state);
        _followed = state.followed.take();
        if !matches!(state.phase, Phase::Open) {
            return;
        }
        let _ = self.outcome.set(outcome);
        if state.tasks.is_empty() {
            state.phase = Phase::Idle;
            let handle = self.leave_if_empty(&mut state);
            drop(state);
            drop(handle);
            return;
        }
        self.no_longer_await(&state, state.tasks.len());
        let ready = self.make_ready(&mut state);
        drop(state);
        // Over HTTP/1, hyper writes the rest of the response in the poll that ends the body. A
        // batch yields only if the connection may still have to write.
        let yields = self.multiplexed;
        self.schedule(ready, yields);
    }

    /// Returns the task's entry, unless its end is claimed.
    fn unclaimed<'a>(state: &'a mut MutexGuard<'_, State>, id: TaskId) -> Option<&'a mut Entry> {
        state
            .entries
            .get_mut(id)
            .filter(|entry| entry.is_unclaimed())
    }

    /// False if the task's end is claimed.
    pub(crate) fn is_unclaimed(&self, id: TaskId) -> bool {
        Self::unclaimed(&mut lock(&self.state), id).is_some()
    }

    /// Returns the label of an unfinished task.
    pub(crate) fn label_of(&self, id: TaskId) -> Option<Label> {
        let mut label = Self::unclaimed(&mut lock(&self.state), id)?.label.clone();
        if self.owner.is_none() {
            label.id = TaskId::NONE; // its number is only the key of its entry
        }
        Some(label)
    }

    /// Makes the context for a task that takes one.
    pub(crate) fn context_of(self: &Arc<Self>, id: TaskId) -> TaskContext {
        let label = self.label_of(id);
        let name = label.map(|label| label.name()).unwrap_or_default();
        TaskContext::new(Arc::clone(self) as Arc<dyn ContextSource>, id, name)
    }

    /// Adds a row for each task in the queue. Returns the queue that this one was merged into, as
    /// a release may have moved tasks there after the registry was read.
    pub(crate) fn infos(&self, now: Instant, rows: &mut Vec<TaskInfo>) -> Option<Arc<Self>> {
        let state = lock(&self.state);
        let request = self.request.as_ref();
        rows.extend(state.entries.iter().map(|entry| entry.info(request, now)));
        rows.extend(self.waiting_infos(&state, now));
        state.merged_into()
    }

    /// Returns the names of the waiting tasks, in the order added.
    pub(crate) fn names(self: &Arc<Self>) -> Vec<Cow<'static, str>> {
        lock(&self.root().state).tasks.names()
    }

    pub(crate) fn len(self: &Arc<Self>) -> usize {
        lock(&self.root().state).tasks.len()
    }

    /// Returns the queue that holds this queue's tasks after all merges.
    pub(crate) fn root(self: &Arc<Self>) -> Arc<Self> {
        let mut queue = Arc::clone(self);
        loop {
            let Some(next) = lock(&queue.state).merged_into() else {
                break;
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

    fn take_merged(&self) -> Option<Arc<Self>> {
        let mut state = lock(&self.state);
        match mem::replace(&mut state.phase, Phase::Discarded) {
            Phase::Merged(target) => Some(target),
            _ => None,
        }
    }

    /// Removes an empty queue from the registry. The caller drops the returned handle after it
    /// releases the lock.
    #[inline]
    fn leave_if_empty(&self, state: &mut State) -> Option<Arc<Self>> {
        if state.followed.is_some() || !state.tasks.is_empty() || !state.entries.is_empty() {
            return None;
        }
        let (place, owner) = (state.place.take()?, self.owner.as_ref()?);
        owner.queues.leave(place)
    }
}

impl State {
    /// Returns the queue that the tasks have moved to.
    fn merged_into(&self) -> Option<Arc<Queue>> {
        match &self.phase {
            Phase::Merged(into) => Some(Arc::clone(into)),
            Phase::Open | Phase::Running | Phase::Idle | Phase::Discarded | Phase::Recording => {
                None
            }
        }
    }
}

impl ContextSource for Queue {
    fn outcome(&self) -> Option<&ResponseOutcome> {
        self.outcome.get()
    }

    fn closing(&self) -> Option<&CancellationToken> {
        self.owner.as_ref().map(|owner| &owner.shared.closing)
    }

    fn request(&self) -> Option<&RequestInfo> {
        self.request.as_ref()
    }

    fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    fn set_progress(&self, id: TaskId, done: f32) {
        if let Some(entry) = lock(&self.state).entries.get_mut(id) {
            entry.progress = Some(done);
        }
    }
}

/// Only a queue without an owner can still hold tasks here: no response took it, and no runner
/// knows its tasks.
impl Drop for Queue {
    fn drop(&mut self) {
        if !self.extensions.is_empty() {
            let _ = contain_drop(mem::take(&mut self.extensions)); // captured values are user code
        }
        let names = {
            let tasks = &lock(&self.state).tasks;
            (!tasks.is_empty()).then(|| tasks.names())
        };
        if let Some(names) = names {
            let _ = contain(|| report::never_attached(&names));
        }
        // Merged queues are dropped in a loop. A recursion would be as deep as their chain.
        let mut next = self.take_merged();
        while let Some(queue) = next.and_then(Arc::into_inner) {
            next = queue.take_merged();
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
            Phase::Discarded => "discarded",
            Phase::Recording => "recording",
            Phase::Merged(_) => "merged",
        };
        let waiting = state.tasks.len();
        drop(state); // the formatter's writer may be user code
        f.debug_struct("Queue")
            .field("phase", &phase)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}
