//! [`Execution`]: one task on its way to its one [`TaskEnd`]. Keeps the promise "isolation".
//!
//! User code (the condition, the future or closure, their destructors) is called here, and always contained.

use std::{
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
    BoxError, Runner, Task, TaskContext, TaskEnd,
    admission::Permit,
    contain::{contain, contain_drop},
    current::Key,
    queue::{Queue, Turn},
};

/// A task whose turn has come.
pub(crate) struct Execution {
    queue: Arc<Queue>,
    key: Key,
    /// `None` once the task has ended, or is on the blocking pool by itself.
    task: Option<Task>,
    stage: Stage,
    blocking: bool,
    timeout: Option<Duration>,
    /// Sends a blocking task to the blocking pool by itself, even without a timeout.
    isolate_blocking: bool,
    /// The task's place under the runner's limits. `None` where there are no limits, and before it has one.
    permit: Option<Permit>,
}

enum Stage {
    Waiting,
    /// `Some` for a task with a timeout.
    Running(Option<Pin<Box<Sleep>>>),
    /// A blocking task with a timeout, on a thread that nobody waits for longer than that.
    OnItsOwn(Pin<Box<dyn Future<Output = TaskEnd> + Send>>),
}

impl Execution {
    pub(crate) fn new(queue: Arc<Queue>, Turn { task, key }: Turn) -> Self {
        let default_timeout = queue.runner().and_then(Runner::task_timeout);
        Self {
            queue,
            key,
            blocking: task.is_blocking(),
            timeout: task.timeout_after().or(default_timeout),
            task: Some(task),
            stage: Stage::Waiting,
            isolate_blocking: false,
            permit: None,
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn is_blocking(&self) -> bool {
        self.blocking
    }

    pub(crate) fn has_permit(&self) -> bool {
        self.permit.is_some()
    }

    pub(crate) fn set_permit(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// True for a task that is to be run by [`run_here`](Self::run_here), on the blocking pool.
    pub(crate) fn wants_blocking_thread(&self) -> bool {
        self.blocking && self.timeout.is_none() && matches!(self.stage, Stage::Waiting)
    }

    /// Lets [`poll`](Self::poll) send a blocking task to the blocking pool, where there is one, and run it here where not.
    pub(crate) fn isolate_blocking(&mut self) {
        self.isolate_blocking = true;
    }

    /// Runs a blocking task on this thread.
    pub(crate) fn run_here(&mut self) -> TaskEnd {
        let end = match self.begin() {
            Ok(()) => match self.poll_task(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(end) => end,
                Poll::Pending => TaskEnd::Aborted,
            },
            Err(end) => end,
        };
        self.clear(end)
    }

    /// Runs the task on the current runtime. What comes back is not to be dropped but by [`discard`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Stage::Waiting = self.stage {
            if let Err(end) = self.begin() {
                return Poll::Ready(self.clear(end));
            }
        }
        let polled = match &mut self.stage {
            Stage::OnItsOwn(end) => end.as_mut().poll(cx),
            Stage::Waiting | Stage::Running(_) => self.poll_until_deadline(cx),
        };
        match polled {
            Poll::Pending if self.queue.park(self.key, cx.waker()) => Poll::Pending,
            Poll::Pending => Poll::Ready(self.clear(TaskEnd::Aborted)),
            Poll::Ready(end) => Poll::Ready(self.clear(end)),
        }
    }

    fn poll_until_deadline(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Poll::Ready(end) = self.poll_task(cx) {
            return Poll::Ready(end);
        }
        if let Stage::Running(Some(deadline)) = &mut self.stage {
            // A task that uses up its turn at every poll must not keep its deadline from being looked at.
            ready!(pin!(coop::unconstrained(deadline.as_mut())).poll(cx));
            return Poll::Ready(TaskEnd::TimedOut);
        }
        Poll::Pending
    }

    fn poll_task(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        let Some(task) = &mut self.task else {
            return Poll::Ready(TaskEnd::Aborted);
        };
        let (queue, key) = (&self.queue, self.key);
        let context = || {
            let name = queue.name_of(key).unwrap_or_default();
            TaskContext::new(Arc::clone(queue), name)
        };
        match contain(|| task.poll(cx, &context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(TaskEnd::Completed),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(TaskEnd::Failed(error)),
            Err(message) => Poll::Ready(TaskEnd::Panicked(message)),
        }
    }

    /// The task begins: `Err` is the end of one that does not run.
    fn begin(&mut self) -> Result<(), TaskEnd> {
        self.stage = Stage::Running(None);
        if !self.queue.begin(self.key, Instant::now()) {
            return Err(TaskEnd::Aborted);
        }
        let Some(task) = &mut self.task else {
            return Err(TaskEnd::Aborted);
        };
        allowed(task, &self.queue)?;
        if self.timeout.is_none() && !self.isolate_blocking {
            return Ok(());
        }
        let has_runtime = Handle::try_current().is_ok();
        if self.blocking {
            if has_runtime {
                let own = self.split_off();
                self.stage = Stage::OnItsOwn(Box::pin(on_its_own(own, self.timeout)));
            }
        } else if let Some(timeout) = self.timeout {
            if !has_runtime {
                return Err(TaskEnd::Failed(NO_RUNTIME.into()));
            }
            let deadline =
                contain(|| Box::pin(sleep(timeout))).map_err(|panic| no_timer(&panic))?;
            self.stage = Stage::Running(Some(deadline));
        }
        Ok(())
    }

    /// Takes the task out, for a thread that may outlive this. It keeps its place under the limits until it really returns.
    fn split_off(&mut self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            key: self.key,
            task: self.task.take(),
            stage: Stage::Running(None),
            permit: self.permit.take(),
            blocking: self.blocking,
            timeout: self.timeout,
            isolate_blocking: self.isolate_blocking,
        }
    }

    /// Drops the task and gives back its place. A destructor that panics has the last word.
    pub(crate) fn clear(&mut self, end: TaskEnd) -> TaskEnd {
        let end = clear(self.task.take(), end);
        self.stage = Stage::Running(None);
        self.permit = None;
        end
    }
}

/// Only what is dropped before its end still has a task here.
impl Drop for Execution {
    fn drop(&mut self) {
        discard(self.clear(TaskEnd::Aborted));
    }
}

fn clear(task: Option<Task>, end: TaskEnd) -> TaskEnd {
    match contain_drop(task) {
        Ok(()) => end,
        Err(message) => {
            discard(end);
            TaskEnd::Panicked(message)
        }
    }
}

/// Drops an end that nobody reads: the error in it is user code, too.
pub(crate) fn discard(end: TaskEnd) {
    let _ = contain_drop(end);
}

/// Whether the task runs: by its own condition, or the runner's, or by default when there was a response.
fn allowed(task: &mut Task, queue: &Queue) -> Result<(), TaskEnd> {
    if queue.is_stopped() {
        return Err(TaskEnd::Skipped);
    }
    let Some(response) = queue.outcome() else {
        return Ok(());
    };
    let of_the_runner = queue.runner().and_then(Runner::run_if);
    let runs = match (task.take_run_if(), of_the_runner) {
        (Some(condition), _) => contain(|| condition(response)).map_err(TaskEnd::Panicked)?,
        (None, Some(condition)) => contain(|| condition(response)).map_err(TaskEnd::Panicked)?,
        (None, None) => response.is_responded(),
    };
    if runs { Ok(()) } else { Err(TaskEnd::Skipped) }
}

/// Runs a blocking task on the blocking pool and waits for it; with a timeout, no longer than that from its start.
async fn on_its_own(mut execution: Execution, timeout: Option<Duration>) -> TaskEnd {
    let (started, has_started) = oneshot::channel();
    let spawned = contain(|| {
        spawn_blocking(move || {
            if started.send(()).is_err() {
                return TaskEnd::Aborted; // dropped while it waited for a thread: it was reported, and must not run
            }
            match execution.poll_task(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(end) => execution.clear(end),
                Poll::Pending => execution.clear(TaskEnd::Aborted),
            }
        })
    });
    let Ok(thread) = spawned else {
        return TaskEnd::Aborted;
    };
    if has_started.await.is_err() {
        return TaskEnd::Aborted;
    }
    let end = async { thread.await.unwrap_or(TaskEnd::Aborted) };
    let Some(timeout) = timeout else {
        return end.await;
    };
    match contain(|| tokio::time::timeout(timeout, end)) {
        Ok(deadline) => deadline.await.unwrap_or(TaskEnd::TimedOut),
        Err(panic) => no_timer(&panic),
    }
}

const NO_RUNTIME: &str = "a task with a timeout needs a Tokio runtime: call `run` from within one";

fn no_timer(panic: &str) -> TaskEnd {
    TaskEnd::Failed(BoxError::from(format!(
        "a task with a timeout needs the runtime's timer: call `enable_time` on its builder ({panic})"
    )))
}
