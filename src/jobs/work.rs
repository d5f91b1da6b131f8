//! [`JobWork`]: a job as the work of a task.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::{Job, TaskContext, TaskResult, task::work::Form};

pin_project! {
    /// A job that starts with its context at the first poll. Before that, it can be taken back.
    #[project = JobWorkProj]
    pub(crate) enum JobWork<J, C, F> {
        /// `job` and `start` are `Some` until the first poll.
        Waiting { job: Option<J>, start: Option<C> },
        Running { #[pin] future: F },
    }
}

impl<J, C, F> JobWork<J, C, F> {
    pub(crate) fn new(job: J, start: C) -> Self {
        Self::Waiting {
            job: Some(job),
            start: Some(start),
        }
    }
}

impl<J, C, F> Form for JobWork<J, C, F>
where
    J: Job,
    C: FnOnce(J, TaskContext) -> F + Send,
    F: Future<Output = TaskResult> + Send,
{
    const IS_BLOCKING: bool = false;

    /// Returns the job's name, so that naming the task costs nothing.
    fn type_name() -> &'static str {
        J::NAME
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult> {
        if let JobWorkProj::Waiting { job, start } = self.as_mut().project() {
            if let (Some(job), Some(start)) = (job.take(), start.take()) {
                let future = start(job, context());
                self.set(Self::Running { future });
            }
        }
        match self.project() {
            JobWorkProj::Running { future } => future.poll(cx),
            // Reached only after `start` has panicked. A panicked task is not polled again.
            JobWorkProj::Waiting { .. } => Poll::Pending,
        }
    }

    fn take_job(self: Pin<&mut Self>) -> Option<Box<dyn Any + Send>> {
        match self.project() {
            JobWorkProj::Waiting { job, .. } => Some(Box::new(job.take()?)),
            JobWorkProj::Running { .. } => None,
        }
    }
}
