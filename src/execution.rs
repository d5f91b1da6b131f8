//! [`Execution`]: one task on its way to its one [`TaskEnd`]. Keeps the promises "nothing disappears" and "isolation".
//!
//! User code (the condition, the future or closure, their destructors) is called here and nowhere else, and always contained.

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
    BoxError, Task, TaskContext, TaskEnd,
    contain::{contain, contain_drop},
    queue::Queue,
    report::Report,
    task::Label,
};

/// A task that has been taken out of its queue. It is polled to its end, or dropped, which aborts it.
pub(crate) struct Execution {
    queue: Arc<Queue>,
    label: Label,
    /// `None` once the task has ended, or is on the blocking pool by itself.
    task: Option<Task>,
    stage: Stage,
    /// Sends a blocking task to the blocking pool by itself, even without a timeout.
    isolate_blocking: bool,
}

enum Stage {
    Waiting,
    /// `deadline` is `Some` for a task with a timeout.
    Running {
        begun: Instant,
        deadline: Option<Pin<Box<Sleep>>>,
    },
    /// A blocking task with a timeout, on a thread that nobody waits for longer than that.
    OnItsOwn {
        begun: Instant,
        end: Pin<Box<dyn Future<Output = TaskEnd> + Send>>,
    },
    Ended,
}

impl Execution {
    pub(crate) fn new(queue: Arc<Queue>, task: Task) -> Self {
        Self {
            queue,
            label: task.label(),
            task: Some(task),
            stage: Stage::Waiting,
            isolate_blocking: false,
        }
    }

    /// True for a task that is to be run by [`run_here`](Self::run_here), on the blocking pool.
    pub(crate) fn wants_blocking_thread(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
            && self
                .task
                .as_ref()
                .is_some_and(|task| task.is_blocking() && task.timeout_after().is_none())
    }

    /// Lets [`poll`](Self::poll) send a blocking task to the blocking pool, where there is one, and run it here where not.
    pub(crate) fn isolate_blocking(&mut self) {
        self.isolate_blocking = true;
    }

    /// Runs a blocking task on this thread.
    pub(crate) fn run_here(&mut self) {
        let end = match self.begin() {
            Ok(()) => match self.poll_task(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(end) => end,
                Poll::Pending => TaskEnd::Aborted,
            },
            Err(end) => end,
        };
        discard(self.finish(end));
    }

    /// Runs the task on the current runtime. The end is not to be dropped but with [`discard`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Stage::Waiting = self.stage {
            if let Err(end) = self.begin() {
                return Poll::Ready(self.finish(end));
            }
        }
        let end = match &mut self.stage {
            Stage::OnItsOwn { end, .. } => ready!(end.as_mut().poll(cx)),
            Stage::Running { .. } => ready!(self.poll_until_deadline(cx)),
            Stage::Waiting | Stage::Ended => TaskEnd::Aborted,
        };
        Poll::Ready(self.finish(end))
    }

    fn poll_until_deadline(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Poll::Ready(end) = self.poll_task(cx) {
            return Poll::Ready(end);
        }
        if let Stage::Running {
            deadline: Some(deadline),
            ..
        } = &mut self.stage
        {
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
        let (queue, name) = (&self.queue, &self.label.name);
        let context = || TaskContext::new(Arc::clone(queue), name.clone());
        match contain(|| task.poll(cx, &context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(TaskEnd::Completed),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(TaskEnd::Failed(error)),
            Err(message) => Poll::Ready(TaskEnd::Panicked(message)),
        }
    }

    /// The task's turn has come: `Err` is the end of a task that does not run.
    fn begin(&mut self) -> Result<(), TaskEnd> {
        let begun = Instant::now();
        self.stage = Stage::Running {
            begun,
            deadline: None,
        };
        if let Some(runner) = self.queue.runner() {
            runner.task_begun();
        }
        let Some(task) = &mut self.task else {
            return Err(TaskEnd::Aborted);
        };
        allowed(task, &self.queue)?;
        let timeout = task.timeout_after();
        if timeout.is_none() && !self.isolate_blocking {
            return Ok(());
        }
        let has_runtime = Handle::try_current().is_ok();
        if task.is_blocking() {
            if !has_runtime {
                return Ok(()); // `BackgroundTasks::run` without a runtime: nothing can time it
            }
            let (task, queue, label) = (self.task.take(), self.queue.clone(), self.label.clone());
            let end = Box::pin(on_its_own(queue, label, task, timeout));
            self.stage = Stage::OnItsOwn { begun, end };
        } else if let Some(timeout) = timeout {
            if !has_runtime {
                return Err(TaskEnd::Failed(NO_RUNTIME.into()));
            }
            let deadline =
                Some(contain(|| Box::pin(sleep(timeout))).map_err(|panic| no_timer(&panic))?);
            self.stage = Stage::Running { begun, deadline };
        }
        Ok(())
    }

    /// Drops the task, then reports its end.
    fn finish(&mut self, end: TaskEnd) -> TaskEnd {
        let begun = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Waiting => None,
            Stage::Running { begun, .. } | Stage::OnItsOwn { begun, .. } => Some(begun),
            Stage::Ended => {
                let _ = contain_drop(self.task.take());
                return end;
            }
        };
        let end = match contain_drop(self.task.take()) {
            Ok(()) => end,
            Err(message) => {
                discard(end);
                TaskEnd::Panicked(message)
            }
        };
        if let Some(runner) = self.queue.runner() {
            if begun.is_none() {
                runner.task_begun();
            }
            runner.task_ended(&Report {
                label: &self.label,
                end: &end,
                begun,
                ended: Instant::now(),
                response: self.queue.outcome(),
            });
        }
        end
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        discard(self.finish(TaskEnd::Aborted));
    }
}

/// Drops an end that nobody reads: the error in it is user code, too.
pub(crate) fn discard(end: TaskEnd) {
    let _ = contain_drop(end);
}

/// Whether the task runs, by its own condition or by default when there was a response.
fn allowed(task: &mut Task, queue: &Queue) -> Result<(), TaskEnd> {
    let Some(response) = queue.outcome() else {
        return Ok(());
    };
    let runs = match task.take_run_if() {
        Some(condition) => contain(|| condition(response)).map_err(TaskEnd::Panicked)?,
        None => response.is_responded(),
    };
    if runs { Ok(()) } else { Err(TaskEnd::Skipped) }
}

/// Runs a blocking task on a thread of its own and waits for it; with a timeout, no longer than that from its start.
async fn on_its_own(
    queue: Arc<Queue>,
    label: Label,
    task: Option<Task>,
    timeout: Option<Duration>,
) -> TaskEnd {
    let (started, has_started) = oneshot::channel();
    let mut execution = Execution {
        queue,
        label,
        task,
        // Its end is not this one's to report.
        stage: Stage::Ended,
        isolate_blocking: false,
    };
    let spawned = contain(|| {
        spawn_blocking(move || {
            if started.send(()).is_err() {
                return TaskEnd::Aborted; // dropped while it waited for a thread: it was reported, and must not run
            }
            let end = execution.poll_task(&mut Context::from_waker(Waker::noop()));
            match (contain_drop(execution.task.take()), end) {
                (Ok(()), Poll::Ready(end)) => end,
                (Ok(()), Poll::Pending) => TaskEnd::Aborted,
                (Err(message), _) => TaskEnd::Panicked(message),
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
