//! [`RunningTask`]: a task that has begun, polled on one thread at a time. Keeps the promise
//! "isolation".
//!
//! User code runs here, always contained: the condition, the future or closure, and their
//! destructors.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    observe::span::{SpanOf, TaskSpan},
    queue::Queue,
    shared::settings::Settings,
    task::{
        Task,
        around::{Around, surrounded},
        context::{ContextSource, TaskContext},
        end::TaskEnd,
        id::TaskId,
        kind::TaskKind,
        output::{BoxError, TaskResult},
    },
    util::{
        contain::{contain, contain_drop},
        panic::TaskPanic,
        timer::{NoTimer, Timer},
    },
};

pub(crate) struct RunningTask {
    /// `Some` until the task is dropped.
    task: Option<Task>,
    id: TaskId,
    span: TaskSpan,
    /// What only few tasks need. It is boxed, and is `None` if no setting affects the task.
    extras: Option<Box<RunExtras>>,
}

#[derive(Default)]
struct RunExtras {
    /// The timer of an async task with a timeout.
    deadline: Option<Timer>,
    /// The end of a task that does not run.
    not_run: Option<TaskEnd>,
    /// The context for what surrounds the task. It stays available after the task's end is
    /// claimed.
    context: Option<TaskContext>,
}

impl RunningTask {
    /// Opens the task's span and checks its condition.
    #[inline]
    pub(crate) fn new(queue: &Arc<Queue>, task: Task) -> Self {
        if !TaskSpan::is_wanted() && queue.runs_unconditionally(&task) {
            return Self {
                id: task.id(),
                task: Some(task),
                span: TaskSpan::default(),
                extras: None,
            };
        }
        Self::asking(queue, task)
    }

    fn asking(queue: &Arc<Queue>, mut task: Task) -> Self {
        let span = open_span(queue, &mut task);
        queue.keep_span(task.id(), &span);
        let allowed = span.in_scope(|| queue.may_run(|| task.take_run_if()));
        let deadline = allowed.and_then(|()| deadline_of(queue, &task));
        let (deadline, not_run) = match deadline {
            Ok(deadline) => (deadline, None),
            Err(end) => (None, Some(end)),
        };
        let settings = queue.settings();
        let is_surrounded = settings.is_some_and(|settings| settings.around.is_some());
        let extras = RunExtras {
            deadline,
            not_run,
            context: is_surrounded.then(|| queue.context_of(task.id())),
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
        let slow_poll = self
            .attending(queue)
            .and_then(|settings| settings.slow_poll);
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

    /// Returns the settings, if one of them may affect this task.
    #[inline]
    fn attending<'a>(&self, queue: &'a Queue) -> Option<&'a Settings> {
        self.extras.as_ref().and(queue.settings())
    }

    /// Returns what surrounds the task, and the context to pass to it.
    #[inline]
    fn around<'a>(&self, queue: &'a Queue) -> Option<(&'a Around, TaskContext)> {
        let context = self.extras.as_ref()?.context.clone()?;
        Some((queue.settings()?.around.as_ref()?, context))
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
        // Read before the poll: a task that is cancelled during it must still be named.
        let (label, begun) = (queue.label_of(self.id), Instant::now());
        let polled = self.poll_task(queue, cx);
        let held = begun.elapsed();
        if let Some(label) = label.filter(|_| held >= threshold) {
            queue.tell_slow_poll(&label, held, &self.span);
        }
        polled
    }

    /// Polls the task in its span.
    #[inline]
    fn poll_task(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if let Some((around, context)) = self.around(queue) {
            return self.poll_surrounded(around, &context, cx);
        }
        let (id, slot, span) = (self.id, &mut self.task, &self.span);
        let context = || queue.context_of(id);
        let polled = contain(|| span.in_scope(|| poll_in(slot, cx, &context)));
        end_of(polled)
    }

    /// Polls the task within `around`, in its span.
    #[cold]
    fn poll_surrounded(
        &mut self,
        around: &Around,
        context: &TaskContext,
        cx: &mut Context<'_>,
    ) -> Poll<TaskEnd> {
        let (slot, span) = (&mut self.task, &self.span);
        let polled = contain(|| {
            let step = || poll_in(slot, cx, &|| context.clone());
            span.in_scope(|| surrounded(around, context, step))
        });
        match polled {
            Ok(Some(polled)) => end_of(Ok(polled)),
            Ok(None) => Poll::Ready(TaskEnd::Failed(NOT_RUN.into())),
            Err(message) => end_of(Err(message)),
        }
    }

    /// Drops the task in its span. If the destructor panics, that panic becomes the task's end.
    #[inline]
    pub(crate) fn finish(&mut self, queue: &Arc<Queue>, end: TaskEnd) -> TaskEnd {
        if self.task.is_none() {
            return end;
        }
        let around = self.around(queue);
        let (slot, span) = (&mut self.task, &self.span);
        let dropped = contain(|| {
            span.in_scope(|| match around {
                None => *slot = None,
                Some((around, context)) => drop(surrounded(around, &context, || *slot = None)),
            });
        });
        // `around` may have panicked before it dropped the task.
        let _ = contain_drop(self.task.take());
        match dropped {
            Ok(()) => end,
            Err(message) => {
                let _ = contain_drop(end);
                TaskEnd::Panicked(message)
            }
        }
    }

    /// True if the task has a span. The queue then holds a handle to it too.
    #[inline]
    pub(super) fn has_span(&self) -> bool {
        !self.span.is_none()
    }

    /// Drops this handle to the task's span. The queue may hold another.
    #[inline]
    pub(super) fn leave_span(&mut self) {
        self.span = TaskSpan::default();
    }
}

/// Polls the task. A task that completes is dropped here, before its end is reported.
#[inline(always)]
fn poll_in(
    slot: &mut Option<Task>,
    cx: &mut Context<'_>,
    context: &dyn Fn() -> TaskContext,
) -> Option<Poll<TaskResult>> {
    let task = slot.as_mut()?;
    let polled = task.poll(cx, context);
    if let Poll::Ready(Ok(())) = polled {
        *slot = None;
    }
    Some(polled)
}

#[inline(always)]
fn end_of(polled: Result<Option<Poll<TaskResult>>, TaskPanic>) -> Poll<TaskEnd> {
    match polled {
        Ok(Some(Poll::Pending)) => Poll::Pending,
        Ok(Some(Poll::Ready(Ok(())))) => Poll::Ready(TaskEnd::Completed),
        Ok(Some(Poll::Ready(Err(error)))) => Poll::Ready(TaskEnd::Failed(error)),
        Ok(None) => Poll::Ready(TaskEnd::Aborted), // the task was dropped before
        Err(message) => Poll::Ready(TaskEnd::Panicked(message)),
    }
}

const NOT_RUN: &str = "what is set as `RunnerBuilder::around` did not run the task";

fn open_span(queue: &Queue, task: &mut Task) -> TaskSpan {
    // Dropped at the end of this function, so that the request's span can close.
    let added_in = task.take_added_in();
    let of = SpanOf {
        added_in: added_in.as_ref(),
        request: queue.request(),
        #[cfg(feature = "tracing")]
        relation: queue.span_relation(),
    };
    TaskSpan::open(&of, || queue.label_of(task.id()))
}

/// Returns the timer of an async task. The supervisor of a blocking task keeps its timeout.
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
