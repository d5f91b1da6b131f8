//! [`ResponseBody`]: passes every frame unchanged, and watches for the end. Keeps the promise
//! "transparent".

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
    /// body, unchanged.
    ///
    /// When the body ends or is dropped, the runner gets the request's tasks.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // `None` once the response has been cut off.
        #[pin]
        inner: Option<B>,
        // `None` in a body that came through no layer. The field stands after `inner`: if the drop
        // is the end, the inner body is dropped before the tasks start.
        guard: Option<EndGuard>,
    }
}

impl<B: Body> ResponseBody<B> {
    /// Wraps the body of `response`, and takes the tasks that the response carries.
    pub(crate) fn guarded(
        mut response: Response<B>,
        mut guard: Option<EndGuard>,
    ) -> Response<Self> {
        let mut passes = true;
        if let Some(guard) = &mut guard {
            if let (Some(queue), Some(tasks)) =
                (guard.queue(), attach::take(response.extensions_mut()))
            {
                queue.merge(tasks.queue());
            }
            passes = guard.response(response.status(), response.headers(), response.body());
        }
        response.map(|inner| {
            let inner = passes.then_some(inner);
            Self { inner, guard }
        })
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.inner.is_none()
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self {
            inner: Some(B::default()),
            guard: None,
        }
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
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending; // cut off: the server will drop the connection
        };
        let Some(guard) = this.guard else {
            return inner.poll_frame(cx);
        };
        if guard.before_poll() {
            let polled = inner.as_mut().poll_frame(cx);
            guard.after_poll();
            let passes = match &polled {
                Poll::Pending => guard.waits(cx),
                Poll::Ready(Some(Ok(frame))) => guard.frame(frame, &*inner),
                Poll::Ready(Some(Err(_))) => guard.body_failed(),
                Poll::Ready(None) => guard.body_ended(),
            };
            if passes {
                return polled;
            }
        }
        this.inner.set(None);
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map(Body::size_hint).unwrap_or_default()
    }
}
