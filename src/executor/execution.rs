//! [`Execution`]: one task on its way to its one [`TaskEnd`]. Keeps the promise "isolation".
//!
//! User code (the condition, the future or closure, their destructors) is called here and on the fast path, and always contained.

use std::{
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{coop, spawn_blocking},
    time::{Instant, Sleep, sleep},
};

use crate::{
    BoxError, ResponseOutcome, Runner, Task, TaskContext, TaskEnd,
    executor::admission::Permit,
    observe::overdue::Thread,
    observe::slow_poll::SlowPoll,
    observe::span::TaskSpan,
    queue::current::Key,
    queue::{Queue, Turn},
    task::RunIf,
    util::contain::{contain, contain_drop, woken_contained},
};

/// A task whose turn has come.
pub(crate) struct Execution {
    task: Task,
    key: Key,
    stage: Stage,
    /// Sends a blocking task to the blocking pool by itself, even without a timeout.
    isolate_blocking: bool,
    /// The task's place under the runner's limits. `None` where there are no limits, and before it has one.
    permit: Option<Permit>,
    /// Nothing until the task begins.
    span: TaskSpan,
}

enum Stage {
    Waiting,
    Running,
    /// A task with a timeout.
    Timed(Pin<Box<Sleep>>),
    /// A blocking task with a timeout, on a thread that nobody waits for longer than that. `task` is a stand-in.
    OnItsOwn(Pin<Box<dyn Future<Output = TaskEnd> + Send>>),
}

impl Execution {
    #[inline]
    pub(crate) fn new(turn: Turn) -> Self {
        Self {
            task: turn.task,
            key: turn.key,
            stage: Stage::Waiting,
            isolate_blocking: false,
            permit: None,
            span: TaskSpan::default(),
        }
    }

    /// A task that has begun, and has been polled.
    pub(crate) fn begun(turn: Turn) -> Self {
        Self {
            stage: Stage::Running,
            ..Self::new(turn)
        }
    }

    /// True for an async task that has not begun and for which nothing is set.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.stage, Stage::Waiting) && self.task.is_plain() && !self.task.is_blocking()
    }

    #[inline]
    pub(crate) fn into_turn(self) -> Turn {
        Turn {
            task: self.task,
            key: self.key,
        }
    }

    #[inline]
    pub(crate) fn take_span(&mut self) -> TaskSpan {
        mem::take(&mut self.span)
    }

    #[inline]
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn is_blocking(&self) -> bool {
        self.task.is_blocking()
    }

    #[inline]
    pub(crate) fn has_permit(&self) -> bool {
        self.permit.is_some()
    }

    pub(crate) fn set_permit(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// True for a task that is to be run by [`run_here`](Self::run_here), on the blocking pool.
    #[inline]
    pub(crate) fn wants_blocking_thread(&self, queue: &Queue) -> bool {
        self.task.is_blocking() && timeout_of(&self.task, queue).is_none()
    }

    /// Lets [`poll`](Self::poll) send a blocking task to the blocking pool, where there is one, and run it here where not.
    pub(crate) fn isolate_blocking(&mut self) {
        self.isolate_blocking = true;
    }

    /// Runs a blocking task on this thread. What comes back is not to be dropped but by [`discard`].
    pub(crate) fn run_here(&mut self, queue: &Arc<Queue>, now: Instant) -> TaskEnd {
        match self.begin(queue, || now) {
            Ok(()) => match self.poll_task(queue, &mut Context::from_waker(Waker::noop())) {
                Poll::Ready(end) => end,
                Poll::Pending => TaskEnd::Aborted,
            },
            Err(end) => end,
        }
    }

    /// Runs the task on the current runtime; `now` is when it begins, if it does. What comes back is not to be dropped but by
    /// [`discard`].
    #[inline]
    pub(crate) fn poll(
        &mut self,
        queue: &Arc<Queue>,
        cx: &mut Context<'_>,
        now: impl FnOnce() -> Instant,
    ) -> Poll<TaskEnd> {
        if let Stage::Waiting = self.stage {
            if let Err(end) = self.begin(queue, now) {
                return Poll::Ready(end);
            }
        } else if !queue.is_current(self.key) {
            return Poll::Ready(TaskEnd::Aborted); // woken to be dropped: it must do nothing more
        }
        let slow = SlowPoll::watch(queue.runner(), || queue.label_of(self.key));
        let polled = match &mut self.stage {
            Stage::OnItsOwn(end) => end.as_mut().poll(cx),
            Stage::Timed(_) => self.poll_until_deadline(queue, cx),
            Stage::Waiting | Stage::Running => self.poll_task(queue, cx),
        };
        slow.check(&self.span);
        if polled.is_pending() && !queue.park(self.key, cx.waker()) {
            return Poll::Ready(TaskEnd::Aborted);
        }
        polled
    }

    fn poll_until_deadline(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Poll::Ready(end) = self.poll_task(queue, cx) {
            return Poll::Ready(end);
        }
        if let Stage::Timed(deadline) = &mut self.stage {
            // A task that uses up its turn at every poll must not keep its deadline from being looked at.
            ready!(pin!(coop::unconstrained(deadline.as_mut())).poll(cx));
        }
        Poll::Ready(TaskEnd::TimedOut)
    }

    #[inline]
    fn poll_task(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        let (task, key, span) = (&mut self.task, self.key, &self.span);
        let context = || context_of(queue, key);
        match contain(|| span.in_scope(|| task.poll(cx, &context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(TaskEnd::Completed),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(TaskEnd::Failed(error)),
            Err(message) => Poll::Ready(TaskEnd::Panicked(message)),
        }
    }

    /// The task begins: `Err` is the end of one that does not run.
    #[inline]
    fn begin(&mut self, queue: &Arc<Queue>, now: impl FnOnce() -> Instant) -> Result<(), TaskEnd> {
        self.stage = Stage::Running;
        // On a thread of its own it begins there.
        let is_ours = if self.wants_its_own_thread(queue) {
            queue.is_current(self.key)
        } else {
            queue.begin(self.key, now())
        };
        if !is_ours {
            return Err(TaskEnd::Aborted);
        }
        let added_in = self.task.take_added_in();
        let label = || queue.label_of(self.key);
        self.span = TaskSpan::open(label, added_in.as_ref(), queue.runner(), queue.request());
        drop(added_in); // the request's span may close now
        queue.keep_span(self.key, &self.span);
        if !self.isolate_blocking && self.is_plain(queue) {
            return Ok(());
        }
        let (task, key) = (&mut self.task, self.key);
        self.span.in_scope(|| allowed(task, key, queue))?;
        let timeout = timeout_of(&self.task, queue);
        if timeout.is_some() || self.isolate_blocking {
            self.stage = self.supervised(queue, timeout)?;
        }
        Ok(())
    }

    /// A blocking task that nobody is to wait for longer than its timeout, or not on this thread.
    fn wants_its_own_thread(&self, queue: &Queue) -> bool {
        self.is_blocking()
            && (self.isolate_blocking || timeout_of(&self.task, queue).is_some())
            && Handle::try_current().is_ok()
    }

    /// True for most tasks: there was a response, or there is none to wait for, and nothing is set that could keep the task from
    /// running or cut it short.
    #[inline]
    fn is_plain(&self, queue: &Queue) -> bool {
        self.task.is_plain()
            && queue.runner().is_some_and(Runner::is_plain)
            && queue.outcome().is_none_or(ResponseOutcome::is_responded)
    }

    /// How a task runs that has a timeout, or blocks where it may not.
    fn supervised(
        &mut self,
        queue: &Arc<Queue>,
        timeout: Option<Duration>,
    ) -> Result<Stage, TaskEnd> {
        let has_runtime = Handle::try_current().is_ok();
        match timeout {
            _ if self.wants_its_own_thread(queue) => {
                let own = self.split_off();
                let end = on_its_own(Arc::clone(queue), own, timeout);
                Ok(Stage::OnItsOwn(Box::pin(end)))
            }
            Some(_) if !self.is_blocking() && !has_runtime => {
                Err(TaskEnd::Failed(NO_RUNTIME.into()))
            }
            Some(timeout) if !self.is_blocking() => {
                let deadline = contain(|| Box::pin(sleep(timeout)));
                Ok(Stage::Timed(deadline.map_err(|panic| no_timer(&panic))?))
            }
            _ => Ok(Stage::Running),
        }
    }

    /// Takes the task out, for a thread that may outlive this. It keeps its place under the limits until it really returns.
    fn split_off(&mut self) -> Self {
        Self {
            task: mem::replace(&mut self.task, Task::new(async {})),
            key: self.key,
            stage: Stage::Running,
            isolate_blocking: false,
            permit: self.permit.take(),
            span: self.span.clone(),
        }
    }
}

/// For a task that wants one.
pub(crate) fn context_of(queue: &Arc<Queue>, key: Key) -> TaskContext {
    let label = queue.label_of(key);
    let name = label.map(|label| label.name()).unwrap_or_default();
    TaskContext::new(Arc::clone(queue), name)
}

/// Drops a task in its span, and then gives back its place, with which another's may begin or end. A destructor that panics has the last
/// word.
#[inline]
pub(crate) fn clear(execution: &mut Option<Execution>, span: &TaskSpan, end: TaskEnd) -> TaskEnd {
    let permit = execution
        .as_mut()
        .and_then(|execution| execution.permit.take());
    let end = span.in_scope(|| match contain(|| *execution = None) {
        Ok(()) => end,
        Err(message) => {
            discard(end);
            TaskEnd::Panicked(message)
        }
    });
    drop(permit);
    end
}

/// The task's own timeout, or the runner's.
#[inline]
fn timeout_of(task: &Task, queue: &Queue) -> Option<Duration> {
    task.timeout_after()
        .or_else(|| queue.runner().and_then(Runner::task_timeout))
}

/// Drops an end that nobody reads: the error in it is user code, too.
#[inline]
pub(crate) fn discard(end: TaskEnd) {
    let _ = contain_drop(end);
}

/// Why a task does not run.
pub(crate) struct NotRun {
    pub(crate) end: TaskEnd,
    /// Somebody wanted that: a condition, or `OnFailure::Stop`.
    pub(crate) by_choice: bool,
}

fn allowed(task: &mut Task, key: Key, queue: &Queue) -> Result<(), TaskEnd> {
    may_run(queue, || task.take_run_if()).map_err(|why| {
        if why.by_choice {
            queue.skip_by_choice(key);
        }
        why.end
    })
}

/// Whether a task of `queue` runs: by its own condition, or the runner's, or by default when there was a response. Not to be called with
/// the queue's lock held.
pub(crate) fn may_run(
    queue: &Queue,
    own_condition: impl FnOnce() -> Option<RunIf>,
) -> Result<(), NotRun> {
    let skipped = |by_choice| NotRun {
        end: TaskEnd::Skipped,
        by_choice,
    };
    if queue.stops_on_failure() && queue.is_stopped() {
        return Err(skipped(true));
    }
    let Some(response) = queue.outcome() else {
        return Ok(());
    };
    let of_the_runner = queue.runner().and_then(Runner::run_if);
    let holds = match (own_condition(), of_the_runner) {
        (Some(condition), _) => contain(|| condition(response)),
        (None, Some(condition)) => contain(|| condition(response)),
        (None, None) if response.is_responded() => return Ok(()),
        (None, None) => return Err(skipped(false)),
    };
    match holds {
        Ok(true) => Ok(()),
        Ok(false) => Err(skipped(true)),
        Err(panic) => Err(NotRun {
            end: TaskEnd::Panicked(panic),
            by_choice: false,
        }),
    }
}

/// Runs a blocking task on the blocking pool and waits for it; with a timeout, no longer than that from its start.
async fn on_its_own(
    queue: Arc<Queue>,
    mut execution: Execution,
    timeout: Option<Duration>,
) -> TaskEnd {
    let (started, has_started) = oneshot::channel();
    let (thread, key, of_thread) = (Thread::default(), execution.key, Arc::clone(&queue));
    let own = thread.clone();
    let spawned = contain(|| {
        spawn_blocking(move || {
            let queue = of_thread;
            if started.send(()).is_err() || !queue.begin(key, Instant::now()) {
                let _ = contain_drop(execution);
                return TaskEnd::Aborted; // ended while it waited for a thread: it was reported, and must not run
            }
            let end = match execution.poll_task(&queue, &mut Context::from_waker(Waker::noop())) {
                Poll::Ready(end) => end,
                Poll::Pending => TaskEnd::Aborted,
            };
            let span = execution.take_span();
            let end = clear(&mut Some(execution), &span, end);
            own.returned(&queue, key);
            end
        })
    });
    let Ok(returned) = spawned else {
        return TaskEnd::Aborted;
    };
    if woken_contained(has_started).await.is_err() {
        return TaskEnd::Aborted;
    }
    let end = async { returned.await.unwrap_or(TaskEnd::Aborted) };
    let Some(timeout) = timeout else {
        return end.await;
    };
    match contain(|| tokio::time::timeout(timeout, end)) {
        Ok(deadline) => deadline.await.unwrap_or_else(|_| {
            thread.timed_out(&queue, key);
            TaskEnd::TimedOut
        }),
        Err(panic) => no_timer(&panic),
    }
}

const NO_RUNTIME: &str = "a task with a timeout needs a Tokio runtime: call `run` from within one";

fn no_timer(panic: &str) -> TaskEnd {
    TaskEnd::Failed(BoxError::from(format!(
        "a task with a timeout needs the runtime's timer: call `enable_time` on its builder ({panic})"
    )))
}
