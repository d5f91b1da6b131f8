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

use std::{borrow::Cow, fmt, mem, panic::Location, sync::Arc, task::Waker};

use http::{Request, Version};
use tokio::time::Instant;

#[cfg(feature = "jobs")]
use crate::jobs::JobSide;
use crate::{
    AddTaskError, OnFailure, Order, ResponseOutcome, Runner, Task, TaskEnd, TaskId, TaskInfo,
    add_error::Refusal,
    batch::Batch,
    contain::{contain, contain_drop},
    current::{Current, Currents, Key, info},
    list::TaskList,
    metrics,
    outcome::Verdict,
    pool,
    registry::{Closed, Place},
    report::{self, Report},
    request_line::RequestLine,
    span::TaskSpan,
    start::Start,
    sync::{Mutex, MutexGuard, OnceLock, get_mut, lock},
    task::Label,
};

pub(crate) struct Queue {
    /// Where the tasks run; `None` for a stand-alone queue.
    runner: Option<Runner>,
    /// `None` for a queue of no request.
    request: Option<RequestLine>,
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
    /// A queue that waits to be attached to a response.
    pub(crate) fn stand_alone() -> Arc<Self> {
        Self::new(None, None, true, Phase::Open)
    }

    /// A queue that waits for the response to `request` to end.
    pub(crate) fn of_request<B>(runner: Runner, request: &Request<B>) -> Arc<Self> {
        let multiplexed = request.version() >= Version::HTTP_2;
        #[cfg(feature = "jobs")]
        let job_side = JobSide::of_request(&runner, request.headers());
        let request = RequestLine::of(request);
        let queue = Self::new(Some(runner), Some(request), multiplexed, Phase::Open);
        #[cfg(feature = "jobs")]
        let queue = Self::with_job_side(queue, job_side);
        queue
    }

    /// Sets what jobs need to know, of a queue that nobody else holds yet.
    #[cfg(feature = "jobs")]
    pub(crate) fn with_job_side(mut queue: Arc<Self>, job_side: Option<Box<JobSide>>) -> Arc<Self> {
        if let Some(queue) = Arc::get_mut(&mut queue) {
            queue.job_side = job_side;
        }
        queue
    }

    #[cfg(feature = "jobs")]
    fn forget_job_side(&mut self) {
        self.job_side = None;
    }

    #[cfg(feature = "jobs")]
    pub(crate) fn job_side(&self) -> Option<&JobSide> {
        self.job_side.as_deref()
    }

    pub(crate) fn request(&self) -> Option<&RequestLine> {
        self.request.as_ref()
    }

    /// A queue that waits for a response to end, of a request that is not known.
    pub(crate) fn of_response(runner: Runner) -> Arc<Self> {
        Self::new(Some(runner), None, true, Phase::Open)
    }

    /// A queue with no response to wait for.
    pub(crate) fn of_no_request(runner: Runner) -> Arc<Self> {
        Self::new(Some(runner), None, true, Phase::Idle)
    }

    fn new(
        runner: Option<Runner>,
        request: Option<RequestLine>,
        multiplexed: bool,
        phase: Phase,
    ) -> Arc<Self> {
        let arrived = Instant::now();
        let mut queue = pool::take().unwrap_or_else(|| Self::blank(arrived));
        if let Some(queue) = Arc::get_mut(&mut queue) {
            queue.runner = runner;
            queue.request = request;
            queue.multiplexed = multiplexed;
            queue.arrived = arrived;
            get_mut(&mut queue.state).phase = phase;
        }
        queue
    }

    fn blank(arrived: Instant) -> Arc<Self> {
        Arc::new(Self {
            runner: None,
            request: None,
            multiplexed: true,
            arrived,
            outcome: OnceLock::new(),
            state: Mutex::new(State {
                phase: Phase::Open,
                tasks: TaskList::default(),
                currents: Currents::default(),
                place: None,
                ended: None,
                stopped: false,
            }),
            #[cfg(feature = "jobs")]
            job_side: None,
        })
    }

    /// Keeps the queue for another request, if nobody else holds it.
    #[inline]
    pub(crate) fn let_go(mut queue: Arc<Self>) {
        if Arc::get_mut(&mut queue).is_some_and(Self::renew) {
            pool::keep(queue);
        }
    }

    /// Makes a queue as good as new, if it is empty.
    #[inline]
    fn renew(&mut self) -> bool {
        let state = get_mut(&mut self.state);
        if !state.tasks.is_empty() || !state.currents.is_empty() || state.place.is_some() {
            return false;
        }
        state.currents.forget_places();
        state.phase = Phase::Open;
        state.ended = None;
        state.stopped = false;
        self.outcome = OnceLock::new();
        self.runner = None;
        self.request = None;
        #[cfg(feature = "jobs")]
        self.forget_job_side();
        true
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

    /// Adds a task, which a refusal gives back.
    pub(crate) fn add(
        self: &Arc<Self>,
        mut task: Task,
        location: &'static Location<'static>,
    ) -> Result<TaskId, AddTaskError> {
        let observed = self.runner.as_ref().is_none_or(Runner::is_observed);
        task.set_added(location, observed.then(Instant::now), self.runner.as_ref());
        self.add_here(task)
    }

    fn add_here(self: &Arc<Self>, mut task: Task) -> Result<TaskId, AddTaskError> {
        let mut state = lock(&self.state);
        if let Phase::Merged(target) = &state.phase {
            let target = Arc::clone(target);
            drop(state);
            return target.add_here(task);
        }
        match self.count_in(&mut state) {
            Ok(id) => task.set_id(id),
            Err(refusal) => return Err(refusal.of(task)),
        }
        // Before the end of the response, in a runner that nobody observes, the request's arrival is good enough for
        // `TaskInfo::age`, and saves a look at the clock for each task.
        if !matches!(state.phase, Phase::Open) {
            task.add_by_now();
        }
        let (id, name) = (task.id(), self.metrics_name(&task));
        let ready = self.enqueue(&mut state, task);
        drop(state);
        metrics::added(name);
        if let Some(ready) = ready {
            ready.launch();
        }
        Ok(id)
    }

    /// Adds a task. One that is refused ends rejected.
    pub(crate) fn add_or_reject(
        self: &Arc<Self>,
        task: Task,
        location: &'static Location<'static>,
    ) {
        if let Err(refused) = self.add(task, location) {
            self.root().reject(refused.into_task());
        }
    }

    /// Counts a task in, and has the queue registered; or refuses it.
    #[inline]
    fn count_in(self: &Arc<Self>, state: &mut State) -> Result<TaskId, Refusal> {
        let Some(runner) = &self.runner else {
            return Ok(TaskId::NONE); // until a merge
        };
        runner.take_pending_place()?;
        if state.place.is_none() {
            match runner.registry().enter(self) {
                Ok(place) => state.place = Some(place),
                Err(Closed) => {
                    runner.give_back_pending_place();
                    return Err(Refusal::Closed);
                }
            }
        }
        Ok(runner.count_added())
    }

    /// Puts a task behind the others. Where nothing else would start it, what the caller is to start comes back.
    #[inline]
    fn enqueue(self: &Arc<Self>, state: &mut State, task: Task) -> Option<Ready> {
        state.tasks.push(task);
        if !matches!(state.phase, Phase::Idle) {
            return None;
        }
        if self.starts_on_the_worker(state) {
            self.batch_begins(state);
            let start = Start::new(Arc::clone(self), state.is_responded());
            return Some(Ready::Start(start));
        }
        let turn = state.next_turn(self.arrived)?;
        Some(Ready::Batch(if self.runs_concurrently() {
            self.count_batch();
            Batch::of_one(Arc::clone(self), turn)
        } else {
            self.batch_begins(state);
            Batch::new(Arc::clone(self), turn)
        }))
    }

    fn batch_begins(&self, state: &mut State) {
        state.phase = Phase::Running;
        self.count_batch();
    }

    /// Under the lock: whoever finds the phase changed finds the batch counted.
    fn count_batch(&self) {
        if let Some(runner) = &self.runner {
            runner.batch_begun();
        }
    }

    /// Whether a worker can take the first task out itself: it needs no place under the runner's limits, nor a blocking thread.
    #[inline]
    fn starts_on_the_worker(&self, state: &mut State) -> bool {
        let runner = self.runner.as_ref();
        let is_free = runner.is_some_and(|runner| {
            runner.admission().is_none() && runner.order() == Order::Sequential
        });
        is_free && state.tasks.begins_async()
    }

    /// For the metrics of the runner, if there is one.
    fn metrics_name(&self, task: &Task) -> metrics::Name {
        let runner = self.runner.as_ref();
        runner.map_or(metrics::Name::NONE, |_| metrics::name_of(task))
    }

    /// Ends a task that was refused.
    fn reject(&self, mut task: Task) {
        if let Some(runner) = &self.runner {
            task.set_id(runner.count_added());
            metrics::added(metrics::name_of(&task));
            let current = Current::new(task.label(self.arrived));
            let _ = contain_drop(task);
            self.report(current, &TaskEnd::Rejected, TaskSpan::default());
        }
    }

    /// The response has ended: what is queued goes to the runner.
    pub(crate) fn end(mut self: Arc<Self>, verdict: Verdict) {
        if Self::nobody_asks(&mut self) {
            return pool::keep(self);
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return;
        }
        state.ended = Some((verdict, now));
        if self.starts_on_the_worker(&mut state) {
            self.batch_begins(&mut state);
            drop(state);
            let multiplexed = self.multiplexed;
            let start = Start::new(self, verdict.is_responded());
            return start.at_end(now, multiplexed).launch();
        }
        if self.runs_concurrently() {
            state.phase = Phase::Idle;
            let mut batches = Vec::with_capacity(state.tasks.len());
            while let Some(turn) = state.next_turn(self.arrived) {
                self.count_batch();
                batches.push(Batch::of_one(Arc::clone(&self), turn).at_end(now, self.multiplexed));
            }
            drop(state);
            batches.into_iter().for_each(Batch::start);
        } else if let Some(turn) = state.next_turn(self.arrived) {
            self.batch_begins(&mut state);
            drop(state);
            let multiplexed = self.multiplexed;
            Batch::new(self, turn).at_end(now, multiplexed).start();
        } else {
            state.phase = Phase::Idle;
        }
    }

    /// True for a queue without a task that nobody else holds: none can be added, and nobody can ask how the response went. It is as
    /// good as new then. For an idle request this saves the clock and the lock.
    fn nobody_asks(queue: &mut Arc<Self>) -> bool {
        Arc::get_mut(queue).is_some_and(Self::renew)
    }

    /// The batch's task has ended; `failed` where it did not do what it was to do. On to the next.
    pub(crate) fn advance(&self, key: Key, failed: bool) -> Advance {
        let mut state = lock(&self.state);
        let ended = state.currents.take(key);
        state.stopped |= failed && ended.is_some() && self.stops_on_failure();
        let next = state.next_turn(self.arrived);
        if next.is_none() {
            state.phase = Phase::Idle;
            self.leave_if_empty(state);
        }
        Advance { ended, next }
    }

    /// On the fast path: the task of `completed` has, and the next one's turn has come. If nothing is set for that one either, it
    /// begins in the same critical section, as of `now`; that is what the `bool` says.
    #[inline]
    pub(crate) fn advance_plain(
        &self,
        completed: Option<Key>,
        now: Instant,
    ) -> Option<(Turn, bool)> {
        let mut state = lock(&self.state);
        let runner = self.runner.as_ref()?;
        if completed.is_some_and(|key| state.currents.remove(key)) {
            runner.count_completed();
        }
        let Some(next) = state.next_turn(self.arrived) else {
            state.phase = Phase::Idle;
            self.leave_if_empty(state);
            runner.tell_if_quiet();
            return None;
        };
        let begins = next.task.is_plain() && !next.task.is_blocking();
        if let (true, Some(current)) = (begins, state.currents.get_mut(next.key)) {
            current.begun = Some(now);
            runner.task_begun();
        }
        drop(state);
        if completed.is_some() {
            runner.tell_if_quiet();
        }
        Some((next, begins))
    }

    /// On the fast path: the task of `completed` has, and the batch goes on later, if this is true.
    pub(crate) fn pause_plain(&self, completed: Key) -> bool {
        let mut state = lock(&self.state);
        let Some(runner) = &self.runner else {
            return false;
        };
        if state.currents.remove(completed) {
            runner.count_completed();
        }
        let goes_on = !state.tasks.is_empty();
        if !goes_on {
            state.phase = Phase::Idle;
        }
        self.leave_if_empty(state);
        runner.tell_if_quiet();
        goes_on
    }

    /// The turn of the first of the tasks, for a batch that was handed over without one.
    pub(crate) fn first_turn(&self) -> Option<Turn> {
        let mut state = lock(&self.state);
        let turn = state.next_turn(self.arrived);
        if turn.is_none() {
            state.phase = Phase::Idle;
        }
        turn
    }

    /// A task that is a batch of its own, or is run by hand, has ended: `Some` is for the caller to report.
    pub(crate) fn ended(&self, key: Key, failed: bool) -> Option<Current> {
        let mut state = lock(&self.state);
        let ended = state.currents.take(key);
        state.stopped |= failed && ended.is_some() && self.stops_on_failure();
        self.leave_if_empty(state);
        ended
    }

    /// The task begins to run; false where somebody has ended it.
    pub(crate) fn begin(&self, key: Key, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let Some(current) = state.currents.get_mut(key) else {
            return false;
        };
        current.begun = Some(now);
        let name = metrics::name(&current.label);
        if let Some(runner) = &self.runner {
            runner.task_begun(); // under the lock: whoever ends the task finds it counted
        }
        drop(state);
        if self.runner.is_some() {
            metrics::begun(name);
        }
        true
    }

    /// The task is pending, and `waker` wakes who polls it; false where somebody has ended it.
    pub(crate) fn park(&self, key: Key, waker: &Waker) -> bool {
        let is_kept = |current: &Current| {
            current
                .waker
                .as_ref()
                .is_some_and(|old| old.will_wake(waker))
        };
        match lock(&self.state).currents.get_mut(key) {
            Some(current) if !is_kept(current) => {}
            Some(_) => return true,
            None => return false,
        }
        // A waker's clone and drop may be anybody's code: not under the lock.
        let mut waker = Some(waker.clone());
        let mut state = lock(&self.state);
        let current = state.currents.get_mut(key);
        let is_current = current
            .map(|current| mem::swap(&mut current.waker, &mut waker))
            .is_some();
        drop(state);
        drop(waker);
        is_current
    }

    /// Keeps the span of a task that begins, for whoever ends it.
    pub(crate) fn keep_span(&self, key: Key, span: &TaskSpan) {
        if span.is_none() {
            return;
        }
        let mut span = span.clone();
        if let Some(current) = lock(&self.state).currents.get_mut(key) {
            mem::swap(&mut current.span, &mut span);
        }
    }

    /// Whether tasks for which nothing is set may take the fast path.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain_so_far() && lock(&self.state).is_responded()
    }

    /// [`is_plain`](Self::is_plain), if there was a response.
    #[inline]
    pub(crate) fn is_plain_so_far(&self) -> bool {
        let runner = self.runner.as_ref();
        runner.is_some_and(|runner| runner.is_plain() && !runner.is_observed())
    }

    /// False where somebody has ended the task.
    pub(crate) fn is_current(&self, key: Key) -> bool {
        lock(&self.state).currents.get_mut(key).is_some()
    }

    /// Notes that a task is skipped because somebody wanted that.
    pub(crate) fn skip_by_choice(&self, key: Key) {
        if let Some(current) = lock(&self.state).currents.get_mut(key) {
            current.skipped_by_choice = true;
        }
    }

    /// Who a task is that has not ended, and when it began.
    pub(crate) fn begun(&self, key: Key) -> Option<(Label, Option<Instant>)> {
        let mut state = lock(&self.state);
        let current = state.currents.get_mut(key)?;
        Some((current.label.clone(), current.begun))
    }

    /// Who a task is that has not ended.
    pub(crate) fn label_of(&self, key: Key) -> Option<Label> {
        let mut state = lock(&self.state);
        let current = state.currents.get_mut(key)?;
        Some(current.label.clone())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).stopped
    }

    /// Takes a task out of a queue whose response has not ended, for whoever runs it by hand. Afterwards only a batch may.
    pub(crate) fn take(&self) -> Option<Turn> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Open => state.next_turn(self.arrived),
            Phase::Running | Phase::Idle | Phase::Merged(_) => None,
        }
    }

    /// Takes out everything that has not ended, for the caller to abort.
    pub(crate) fn take_all(&self) -> Left {
        let mut state = lock(&self.state);
        let left = Left {
            currents: state.currents.take_all(),
            tasks: mem::take(&mut state.tasks),
        };
        self.leave_if_empty(state);
        left
    }

    /// Takes the jobs that a store may have out of what was taken out.
    #[cfg(feature = "jobs")]
    pub(crate) fn jobs_of(&self, left: &mut Left) -> Vec<Current> {
        let is_job = |current: &Current| current.label.kept.is_some();
        let currents = left.currents.take_all().into_iter();
        let (mut jobs, others): (Vec<_>, Vec<_>) = currents.partition(is_job);
        for current in others {
            left.currents.insert(current);
        }
        for _ in 0..left.tasks.len() {
            let Some(task) = left.tasks.pop() else { break };
            let current = Current::new(task.label(self.arrived));
            if is_job(&current) {
                let _ = contain_drop(task);
                jobs.push(current);
            } else {
                left.tasks.push(task);
            }
        }
        jobs
    }

    /// Rows for what was taken out.
    pub(crate) fn rows(&self, left: &Left, now: Instant) -> Vec<TaskInfo> {
        self.infos_of(&left.currents, &left.tasks, now)
    }

    /// Ends what was taken out aborted.
    pub(crate) fn abort(&self, mut left: Left) {
        for current in left.currents {
            self.abort_one(current);
        }
        while let Some(task) = left.tasks.pop() {
            let current = Current::new(task.label(self.arrived));
            let _ = contain_drop(task);
            self.abort_one(current);
        }
    }

    /// Reports a task, which the caller has taken out of the queue, as aborted, and wakes who polls it.
    fn abort_one(&self, mut current: Current) {
        let waker = current.waker.take();
        self.report(current, &TaskEnd::Aborted, TaskSpan::default());
        if let Some(waker) = waker {
            let _ = contain(|| waker.wake()); // code of the runtime's, or of whoever polls `BackgroundTasks::run`
        }
    }

    /// Ends a task aborted, if it is here: `Some(false)` for a blocking task that runs, which cannot be stopped.
    pub(crate) fn cancel(&self, id: TaskId) -> Option<bool> {
        let mut state = lock(&self.state);
        if let Some((key, current)) = state.currents.find(id) {
            if current.label.blocking && current.begun.is_some() {
                return Some(false);
            }
            let current = state.currents.take(key)?;
            self.leave_if_empty(state);
            self.abort_one(current);
            return Some(true);
        }
        let task = state.tasks.remove(id)?;
        self.leave_if_empty(state);
        let current = Current::new(task.label(self.arrived));
        let _ = contain_drop(task);
        self.abort_one(current);
        Some(true)
    }

    /// Rows for the tasks that are in the queue now.
    pub(crate) fn infos(&self, now: Instant) -> Vec<TaskInfo> {
        let state = lock(&self.state);
        self.infos_of(&state.currents, &state.tasks, now)
    }

    fn infos_of(&self, currents: &Currents, tasks: &TaskList, now: Instant) -> Vec<TaskInfo> {
        let request = self.request.as_ref();
        let currents = currents.iter().map(|current| current.info(request, now));
        let waiting = tasks.labels(self.arrived).into_iter();
        currents
            .chain(waiting.map(|label| info(&label, None, request, now)))
            .collect()
    }

    /// Tells the runner how a task ended, which the caller has taken out of the queue. Its spans (`span` is the caller's handle) are
    /// closed by the time that whoever waits for the end hears of it.
    #[inline]
    pub(crate) fn report(&self, mut current: Current, end: &TaskEnd, span: TaskSpan) {
        let Some(runner) = &self.runner else { return };
        let own = mem::take(&mut current.span);
        own.in_scope(|| {
            runner.report(&Report {
                label: &current.label,
                end,
                begun: current.begun,
                skipped_by_choice: current.skipped_by_choice,
                response: self.outcome(),
                request: self.request(),
            });
        });
        drop((own, span));
        runner.count_ended(end, current.begun.is_some());
    }

    /// Moves the tasks of `from` behind this queue's own, and whatever is added to `from` later too.
    ///
    /// Does nothing if `from` is this queue, or is part of it or of another already.
    pub(crate) fn merge(self: &Arc<Self>, from: &Arc<Self>) {
        let (into, from) = (self.root(), from.root());
        if Arc::ptr_eq(&into, &from) || from.runner.is_some() {
            return;
        }
        // Both at once, so that a task added to `from` meanwhile cannot overtake those that move; by age (and address), so that
        // two merges of the same pair cannot wait for each other.
        let age = |queue: &Arc<Self>| (queue.arrived, Arc::as_ptr(queue));
        let (mut into_state, mut from_state);
        if age(&into) < age(&from) {
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
        let (mut refused, mut batches, mut names) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(mut task) = moving.pop() {
            match into.count_in(&mut into_state) {
                Ok(id) => {
                    task.set_id(id);
                    names.push(into.metrics_name(&task));
                    batches.extend(into.enqueue(&mut into_state, task));
                }
                Err(_) => refused.push(task),
            }
        }
        drop(into_state);
        names.into_iter().for_each(metrics::added);
        batches.into_iter().for_each(Ready::launch);
        for task in refused {
            into.reject(task);
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

    /// Leaves the registry when there is nothing left to name. The registry's handle may be the last but the caller's: it is
    /// dropped behind the lock.
    #[inline]
    fn leave_if_empty(&self, mut state: MutexGuard<'_, State>) {
        if !state.tasks.is_empty() || !state.currents.is_empty() {
            return;
        }
        let handle = match (state.place.take(), &self.runner) {
            (Some(place), Some(runner)) => runner.registry().leave(place),
            _ => None,
        };
        drop(state);
        drop(handle);
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
        let key = self.currents.insert(Current::new(task.label(arrived)));
        Some(Turn { task, key })
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
