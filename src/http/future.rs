//! [`ResponseFuture`]: sees the response head, or that there will be none.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{body::ResponseBody, end_guard::EndGuard};

pin_project! {
    /// The future of [`BackgroundTasksService`](crate::BackgroundTasksService).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // `Some` until the response takes it. It stands after `inner`: if the drop is the end, what
        // the handler holds is dropped before its tasks start.
        guard: Option<EndGuard>,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, guard: EndGuard) -> Self {
        Self {
            inner,
            guard: Some(guard),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !this.guard.as_mut().is_none_or(EndGuard::before_poll) {
            return Poll::Pending; // the connection ends with its server
        }
        let entered = this.guard.as_mut().map(EndGuard::enter);
        let polled = this.inner.poll(cx);
        drop(entered);
        if let Some(guard) = this.guard {
            guard.after_poll();
        }
        let result = ready!(polled);
        let guard = this.guard.take();
        Poll::Ready(match result {
            Ok(response) => Ok(ResponseBody::guarded(response, guard)),
            Err(error) => {
                if let Some(mut guard) = guard {
                    guard.service_failed();
                }
                Err(error)
            }
        })
    }
}
