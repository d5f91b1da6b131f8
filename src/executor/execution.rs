//! [`Execution`]: runs one task until its [`TaskEnd`].

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use super::{limits::Permit, running_task::RunningTask, supervised::supervise};
use crate::{
    queue::{Ended, Queue, dequeued::Dequeued},
    task::{end::TaskEnd, id::TaskId, kind::TaskKind},
};

pub(crate) struct Execution {
    id: TaskId,
    run: Run,
    /// True if the last poll was pending. Another party may have claimed the end since then.
    is_parked: bool,
}

enum Run {
    /// Runs on the thread that polls this.
    Here(RunningTask),
    /// Runs on a blocking thread, which this awaits.
    Supervised(Pin<Box<dyn Future<Output = TaskEnd> + Send>>),
}

impl Execution {
    #[inline]
    pub(crate) fn here(task: RunningTask) -> Self {
        Self {
            id: task.id(),
            run: Run::Here(task),
            is_parked: false,
        }
    }

    pub(crate) fn supervised(
        queue: &Arc<Queue>,
        id: TaskId,
        permit: Option<Weak<Permit>>,
        limit: Option<Duration>,
    ) -> Self {
        let end = supervise(Arc::clone(queue), id, permit, limit);
        Self {
            id,
            run: Run::Supervised(Box::pin(end)),
            is_parked: false,
        }
    }

    /// Prepares a task for a caller that runs a queue by hand. Returns `None` if the task's end is
    /// claimed.
    pub(crate) fn by_hand(queue: &Arc<Queue>, dequeued: &Dequeued) -> Option<Self> {
        let has_runtime = tokio::runtime::Handle::try_current().is_ok();
        if dequeued.needs.kind == TaskKind::Blocking && has_runtime {
            let limit = queue.timeout_of(dequeued.needs);
            return Some(Self::supervised(queue, dequeued.id, None, limit));
        }
        let task = queue.begin(dequeued.id)?;
        Some(Self::here(RunningTask::new(queue, task)))
    }

    #[inline]
    pub(crate) fn poll(&mut self, queue: &Arc<Queue>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        if self.is_parked && !queue.is_unclaimed(self.id) {
            // The canceller woke this poll so that the task is dropped. The task must not run
            // again.
            return Poll::Ready(TaskEnd::Aborted);
        }
        let polled = match &mut self.run {
            Run::Here(task) => task.poll(queue, cx),
            Run::Supervised(end) => end.as_mut().poll(cx),
        };
        if polled.is_pending() {
            self.is_parked = true;
            if !queue.park(self.id, cx.waker()) {
                return Poll::Ready(TaskEnd::Aborted);
            }
        }
        polled
    }

    /// Runs a blocking task to its end.
    pub(super) fn run(&mut self, queue: &Arc<Queue>) -> TaskEnd {
        match &mut self.run {
            Run::Here(task) => task.run(queue),
            Run::Supervised(_) => TaskEnd::Aborted, // it has a thread of its own
        }
    }

    /// Drops the task and reports its end, unless another party has reported it. The caller passes
    /// the result to the queue, which settles it.
    #[inline]
    pub(crate) fn conclude(&mut self, queue: &Arc<Queue>, end: TaskEnd) -> Ended {
        let (end, has_span) = match &mut self.run {
            Run::Here(task) => (task.finish(queue, end), task.has_span()),
            // The queue may hold a span that the thread opened.
            Run::Supervised(_) => (queue.finish_waiting(self.id, end), true),
        };
        let told = queue.tell(self.id, &end, has_span);
        // The span closes before a waiter hears of the end.
        if let Run::Here(task) = &mut self.run {
            task.leave_span();
        }
        Ended {
            id: self.id,
            end,
            told,
        }
    }
}
