//! A task's work, type-erased. Each form of work is its own type. So a task is one allocation, and
//! the type name is that of its caller's future or closure.

use std::{
    any::type_name,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use sync_wrapper::SyncWrapper;

use super::{
    context::TaskContext,
    output::{TaskOutput, TaskResult},
};

/// What a task does, and where it is polled.
pub(crate) trait Form: Send {
    /// True if a poll may block its thread. Such work is polled only once, on the blocking pool.
    const IS_BLOCKING: bool;

    /// The type name of the caller's future or closure.
    fn type_name() -> &'static str;

    /// Polls the work. Only forms that need a [`TaskContext`] call `context`, so the others do not
    /// pay for it.
    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult>;

    /// Returns the job of a refused task. Returns `None` if the task is no job, or has begun.
    #[cfg(feature = "jobs")]
    fn take_job(self: Pin<&mut Self>) -> Option<Box<dyn std::any::Any + Send>> {
        None
    }
}

/// A type-erased [`Form`]. It is `Sync` although most futures are not, because it is only polled
/// through a mutable reference. So an error that holds a task is `Sync` too.
pub(crate) trait Work: Send + Sync {
    fn is_blocking(&self) -> bool;

    fn type_name(&self) -> &'static str;

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult>;

    #[cfg(feature = "jobs")]
    fn take_job(self: Pin<&mut Self>) -> Option<Box<dyn std::any::Any + Send>>;
}

impl<F: Form> Work for SyncWrapper<F> {
    fn is_blocking(&self) -> bool {
        F::IS_BLOCKING
    }

    fn type_name(&self) -> &'static str {
        F::type_name()
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult> {
        self.get_pin_mut().poll(cx, context)
    }

    #[cfg(feature = "jobs")]
    fn take_job(self: Pin<&mut Self>) -> Option<Box<dyn std::any::Any + Send>> {
        self.get_pin_mut().take_job()
    }
}

pin_project! {
    /// A future.
    pub(crate) struct Async<F> {
        #[pin]
        pub(crate) future: F,
    }
}

impl<F> Form for Async<F>
where
    F: Future + Send,
    F::Output: TaskOutput,
{
    const IS_BLOCKING: bool = false;

    fn type_name() -> &'static str {
        type_name::<F>()
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult> {
        self.project()
            .future
            .poll(cx)
            .map(TaskOutput::into_task_result)
    }
}

pin_project! {
    /// A future that is made from its context at the first poll.
    #[project = AsyncWithContextProj]
    pub(crate) enum AsyncWithContext<C, F> {
        /// `make` is `Some` until the first poll.
        Waiting { make: Option<C> },
        Running { #[pin] future: F },
    }
}

impl<C, F> Form for AsyncWithContext<C, F>
where
    C: FnOnce(TaskContext) -> F + Send,
    F: Future + Send,
    F::Output: TaskOutput,
{
    const IS_BLOCKING: bool = false;

    fn type_name() -> &'static str {
        type_name::<C>()
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult> {
        if let AsyncWithContextProj::Waiting { make } = self.as_mut().project() {
            if let Some(make) = make.take() {
                let future = make(context());
                self.set(AsyncWithContext::Running { future });
            }
        }
        match self.project() {
            AsyncWithContextProj::Running { future } => {
                future.poll(cx).map(TaskOutput::into_task_result)
            }
            // This happens only after `make` has panicked. A panicked task is not polled again.
            AsyncWithContextProj::Waiting { .. } => Poll::Pending,
        }
    }
}

pin_project! {
    /// A closure for the blocking pool. `call` is `Some` until it is polled.
    pub(crate) struct Blocking<C> {
        pub(crate) call: Option<C>,
    }
}

impl<C, R> Form for Blocking<C>
where
    C: FnOnce() -> R + Send,
    R: TaskOutput,
{
    const IS_BLOCKING: bool = true;

    fn type_name() -> &'static str {
        type_name::<C>()
    }

    fn poll(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult> {
        let call = self.project().call.take();
        Poll::Ready(call.map_or(Ok(()), |call| call().into_task_result()))
    }
}

pin_project! {
    /// A closure for the blocking pool that takes its context. `call` is `Some` until it is
    /// polled.
    pub(crate) struct BlockingWithContext<C> {
        pub(crate) call: Option<C>,
    }
}

impl<C, R> Form for BlockingWithContext<C>
where
    C: FnOnce(TaskContext) -> R + Send,
    R: TaskOutput,
{
    const IS_BLOCKING: bool = true;

    fn type_name() -> &'static str {
        type_name::<C>()
    }

    fn poll(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        context: &dyn Fn() -> TaskContext,
    ) -> Poll<TaskResult> {
        let call = self.project().call.take();
        Poll::Ready(call.map_or(Ok(()), |call| call(context()).into_task_result()))
    }
}
