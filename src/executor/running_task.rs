//! [`RunningTask`]: a task that has begun, on the thread that polls it. Keeps the promise "isolation".
//!
//! User code (the condition, the future or closure, their destructors) is called here, and always contained.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
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
    /// `Some` until it is dropped.
    task: Option<Task>,
    id: TaskId,
    span: TaskSpan,
    /// What few tasks have, in a box of its own.
    extras: Option<Box<Extras>>,
}

#[derive(Default)]
struct Extras {
    /// Of an async task with a timeout.
    deadline: Option<Timer>,
    /// The end of a task that does not run.
    not_run: Option<TaskEnd>,
    /// Given back behind the end of the task.
    _permit: Option<Box<Permit>>,
}

impl RunningTask {
    /// Opens the task's span, and asks whether it is to run.
    #[inline]
    pub(crate) fn new(queue: &Arc<Queue>, task: Task, permit: Option<Box<Permit>>) -> Self {
        if permit.is_none() && !TaskSpan::is_wanted() && queue.runs_unconditionally(&task) {
            return Self {
                id: task.id(),
                task: Some(task),
                span: TaskSpan::default(),
                extras: None,
            };
        }
        Self::asking(queue, task, permit)
    }

    fn asking(queue: &Arc<Queue>, mut task: Task, permit: Option<Box<Permit>>) -> Self {
        let span = open_span(queue, &mut task);
        queue.keep_span(task.id(), &span);
        let allowed = span.in_scope(|| queue.may_run(|| task.take_run_if()));
        let deadline = allowed.and_then(|()| deadline_of(queue, &task));
        let (deadline, not_run) = match deadline {
            Ok(deadline) => (deadline, None),
            Err(end) => (None, Some(end)),
        };
        let extras = Extras {
            deadline,
            not_run,
            _permit: permit,
        };
        Self {
            id: task.id(),
            task: Some(task),
            span,
            extras: Some(Box::new(extras)),
        }
    }

    pub(crate) fn id(&self) -> TaskId {
        self.id
    }

    #[inline]
    pub(crate) fn poll(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Some(end) = self.take_not_run() {
            return Poll::Ready(end);
        }
        let slow_poll = queue.settings().and_then(|settings| settings.slow_poll);
        let polled = match slow_poll {
            None => self.poll_task(queue, cx),
            Some(threshold) => self.poll_timed(threshold, queue, cx),
        };
        if polled.is_ready() {
            return polled;
        }
        let extras = self.extras.as_mut();
        let Some(deadline) = extras.and_then(|extras| extras.deadline.as_mut()) else {
            return Poll::Pending;
        };
        Poll::Ready(match ready!(deadline.poll(cx)) {
            Ok(()) => TaskEnd::TimedOut,
            Err(why) => no_timer(&why),
        })
    }

    #[inline]
    fn take_not_run(&mut self) -> Option<TaskEnd> {
        self.extras.as_mut()?.not_run.take()
    }

    /// Runs a blocking task to its end.
    pub(crate) fn run(&mut self, queue: &Arc<Queue>) -> TaskEnd {
        if let Some(end) = self.take_not_run() {
            return end;
        }
        match self.poll_task(queue, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => end,
            Poll::Pending => TaskEnd::Aborted,
        }
    }

    #[cold]
    fn poll_timed(
        &mut self,
        threshold: Duration,
        queue: &Arc<Queue>,
        cx: &mut Context<'_>,
    ) -> Poll<TaskEnd> {
        let slow = SlowPoll::watch(threshold, queue.label_of(self.id));
        let polled = self.poll_task(queue, cx);
        slow.check(&self.span);
        polled
    }

    /// A task that completes is dropped as well, before anybody hears of it.
    #[inline]
    fn poll_task(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        let (id, slot, span) = (self.id, &mut self.task, &self.span);
        let context = || queue.context_of(id);
        let polled = contain(|| {
            span.in_scope(|| {
                let task = slot.as_mut()?;
                let polled = task.poll(cx, &context);
                if let Poll::Ready(Ok(())) = polled {
                    *slot = None;
                }
                Some(polled)
            })
        });
        match polled {
            Ok(Some(Poll::Pending)) => Poll::Pending,
            Ok(Some(Poll::Ready(Ok(())))) => Poll::Ready(TaskEnd::Completed),
            Ok(Some(Poll::Ready(Err(error)))) => Poll::Ready(TaskEnd::Failed(error)),
            Ok(None) => Poll::Ready(TaskEnd::Aborted), // it has ended
            Err(message) => Poll::Ready(TaskEnd::Panicked(message)),
        }
    }

    /// Drops the task in its span. A destructor that panics has the last word.
    #[inline]
    pub(crate) fn finish(&mut self, end: TaskEnd) -> TaskEnd {
        if self.task.is_none() {
            return end;
        }
        match contain(|| self.span.in_scope(|| self.task = None)) {
            Ok(()) => end,
            Err(message) => {
                let _ = contain_drop(end);
                TaskEnd::Panicked(message)
            }
        }
    }

    /// Has a span, whose handle the queue has too.
    #[inline]
    pub(super) fn has_span(&self) -> bool {
        !self.span.is_none()
    }

    /// Closes the task's span, but for the queue's handle of it.
    #[inline]
    pub(super) fn leave_span(&mut self) {
        self.span = TaskSpan::default();
    }
}

fn open_span(queue: &Queue, task: &mut Task) -> TaskSpan {
    let added_in = task.take_added_in(); // dropped here: the request's span may close now
    let of = SpanOf {
        added_in: added_in.as_ref(),
        request: queue.request(),
        #[cfg(feature = "tracing")]
        relation: queue.span_relation(),
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
