//! [`ResponseBody`]: passes every frame through unchanged, and watches for the end. Keeps the
//! promise "transparent".

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{attach, end_guard::EndGuard};

pin_project! {
    /// The response body of [`BackgroundTasksService`](crate::BackgroundTasksService): the inner
    /// one, unchanged.
    ///
    /// Its end, or its drop, hands the request's tasks to the runner.
    #[derive(Debug, Default)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        // `None` in a body that came through no layer. It stands after `inner`: if the drop is the
        // end, the inner body is dropped before the tasks start.
        guard: Option<EndGuard>,
    }
}

impl<B: Body> ResponseBody<B> {
    /// Wraps the body of `response`, and takes the tasks that came with the response.
    pub(crate) fn guarded(
        mut response: Response<B>,
        mut guard: Option<EndGuard>,
    ) -> Response<Self> {
        if let Some(guard) = &mut guard {
            if let (Some(queue), Some(tasks)) =
                (guard.queue(), attach::take(response.extensions_mut()))
            {
                queue.merge(tasks.queue());
            }
            guard.response(response.status(), response.headers(), response.body());
        }
        response.map(|inner| Self { inner, guard })
    }
}

impl<B> ResponseBody<B> {
    /// Returns a reference to the inner body.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(guard) = this.guard else {
            return this.inner.poll_frame(cx);
        };
        if !guard.before_poll() {
            return Poll::Pending; // the connection ends with its server
        }
        let polled = this.inner.as_mut().poll_frame(cx);
        guard.after_poll();
        match &polled {
            Poll::Ready(Some(Ok(frame))) => guard.frame(frame, &*this.inner),
            Poll::Ready(Some(Err(_))) => guard.body_failed(),
            Poll::Ready(None) => guard.body_ended(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
