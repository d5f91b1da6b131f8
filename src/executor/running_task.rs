//! [`RunningTask`]: a task that has begun, on the thread that polls it. Keeps the promise "isolation".
//!
//! User code (the condition, the future or closure, their destructors) is called here, and always contained.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use super::limits::Permit;
use crate::{
    observe::{
        slow_poll::SlowPoll,
        span::{SpanOf, TaskSpan},
    },
    queue::Queue,
    task::{
        Task, context::ContextSource, end::TaskEnd, id::TaskId, kind::TaskKind, output::BoxError,
    },
    util::{
        contain::{contain, contain_drop},
        timer::{NoTimer, Timer},
    },
};

pub(crate) struct RunningTask {
    /// `Some` until it has ended.
    task: Option<Task>,
    id: TaskId,
    span: TaskSpan,
    /// Of an async task with a timeout.
    deadline: Option<Timer>,
    /// The end of a task that does not run.
    not_run: Option<TaskEnd>,
    /// Given back when the task was dropped.
    _permit: Option<Permit>,
}

impl RunningTask {
    /// Opens the task's span, and asks whether it is to run.
    pub(crate) fn new(queue: &Arc<Queue>, mut task: Task, permit: Option<Permit>) -> Self {
        let span = open_span(queue, &mut task);
        queue.keep_span(task.id(), &span);
        let allowed = span.in_scope(|| queue.may_run(|| task.take_run_if()));
        let deadline = allowed.and_then(|()| deadline_of(queue, &task));
        let (deadline, not_run) = match deadline {
            Ok(deadline) => (deadline, None),
            Err(end) => (None, Some(end)),
        };
        Self {
            id: task.id(),
            task: Some(task),
            span,
            deadline,
            not_run,
            _permit: permit,
        }
    }

    pub(crate) fn id(&self) -> TaskId {
        self.id
    }

    pub(crate) fn poll(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Some(end) = self.not_run.take() {
            return Poll::Ready(end);
        }
        let threshold = queue.settings().and_then(|settings| settings.slow_poll);
        let slow = SlowPoll::watch(threshold, || queue.label_of(self.id));
        let polled = self.poll_task(queue, cx);
        slow.check(&self.span);
        if polled.is_ready() {
            return polled;
        }
        let Some(deadline) = &mut self.deadline else {
            return Poll::Pending;
        };
        Poll::Ready(match ready!(deadline.poll(cx)) {
            Ok(()) => TaskEnd::TimedOut,
            Err(why) => no_timer(&why),
        })
    }

    /// Runs a blocking task to its end.
    pub(crate) fn run(&mut self, queue: &Arc<Queue>) -> TaskEnd {
        if let Some(end) = self.not_run.take() {
            return end;
        }
        match self.poll_task(queue, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => end,
            Poll::Pending => TaskEnd::Aborted,
        }
    }

    fn poll_task(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        let (id, Some(task)) = (self.id, &mut self.task) else {
            return Poll::Ready(TaskEnd::Aborted);
        };
        let context = || queue.context_of(id);
        match contain(|| self.span.in_scope(|| task.poll(cx, &context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(TaskEnd::Completed),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(TaskEnd::Failed(error)),
            Err(message) => Poll::Ready(TaskEnd::Panicked(message)),
        }
    }

    /// Drops the task in its span, and then gives its permit back. A destructor that panics has the last word.
    pub(crate) fn finish(mut self, end: TaskEnd) -> TaskEnd {
        match contain(|| self.span.in_scope(|| self.task = None)) {
            Ok(()) => end,
            Err(message) => {
                let _ = contain_drop(end);
                TaskEnd::Panicked(message)
            }
        }
    }
}

fn open_span(queue: &Queue, task: &mut Task) -> TaskSpan {
    let added_in = task.take_added_in(); // dropped here: the request's span may close now
    let of = SpanOf {
        added_in: added_in.as_ref(),
        request: queue.request(),
        #[cfg(feature = "tracing")]
        relation: queue
            .settings()
            .map(|settings| settings.span_relation)
            .unwrap_or_default(),
    };
    TaskSpan::open(&of, || queue.label_of(task.id()))
}

/// Of an async task; whoever runs a blocking one looks after its timeout.
fn deadline_of(queue: &Queue, task: &Task) -> Result<Option<Timer>, TaskEnd> {
    let needs = task.needs();
    let timeout = queue.timeout_of(needs);
    let timer = timeout
        .filter(|_| needs.kind == TaskKind::Async)
        .map(Timer::new);
    timer.transpose().map_err(|why| no_timer(&why))
}

pub(super) fn no_timer(why: &NoTimer) -> TaskEnd {
    TaskEnd::Failed(match why {
        NoTimer::NoRuntime => {
            "a task with a timeout needs a Tokio runtime: call `run` from within one".into()
        }
        NoTimer::Panicked(panic) => BoxError::from(format!(
            "a task with a timeout needs the runtime's timer: call `enable_time` on its builder ({panic})"
        )),
    })
}
