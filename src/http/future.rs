//! [`ResponseFuture`]: sees the response head, or that there is none.

use std::{
    pin::Pin,
    task::{Context, Poll},
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
        // `None` once the response has been cut off.
        #[pin]
        inner: Option<F>,
        // `Some` until the response takes it. The field stands after `inner`: if the drop is the
        // end, the values that the handler holds are dropped before its tasks start.
        guard: Option<EndGuard>,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, guard: EndGuard) -> Self {
        Self {
            inner: Some(inner),
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
        let mut this = self.project();
        let (Some(inner), Some(guard)) = (this.inner.as_mut().as_pin_mut(), this.guard.as_mut())
        else {
            return Poll::Pending; // cut off: the server will drop the connection
        };
        if guard.before_poll() {
            let entered = guard.enter();
            let polled = inner.poll(cx);
            drop(entered);
            guard.after_poll();
            match polled {
                Poll::Pending if guard.waits(cx) => return Poll::Pending,
                Poll::Pending => {}
                Poll::Ready(Ok(response)) => {
                    let response = ResponseBody::guarded(response, this.guard.take());
                    if !response.body().is_cut_off() {
                        return Poll::Ready(Ok(response));
                    }
                }
                Poll::Ready(Err(error)) if guard.service_failed() => {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Err(_)) => {}
            }
        }
        this.inner.set(None);
        Poll::Pending
    }
}
