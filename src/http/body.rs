//! [`ResponseBody`]: passes every frame through unchanged, and watches for the end. Keeps the promise "transparent".

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{http::attach, outcome::EndWatch};

pin_project! {
    /// The response body of [`BackgroundTasksService`](crate::BackgroundTasksService): the inner one, unchanged.
    ///
    /// Its end, or its drop, hands the request's tasks to the runner.
    #[derive(Debug, Default)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        // `None` in a body that came through no layer. Behind `inner`, so that where its drop is the end, what the body holds is
        // dropped before the tasks start.
        watch: Option<EndWatch>,
    }
}

impl<B: Body> ResponseBody<B> {
    /// Wraps the body of `response`, and takes the tasks off it that came with it.
    pub(crate) fn watched(
        mut response: Response<B>,
        mut watch: Option<EndWatch>,
    ) -> Response<Self> {
        if let Some(watch) = &mut watch {
            if let (Some(queue), Some(tasks)) =
                (watch.queue(), attach::take(response.extensions_mut()))
            {
                queue.merge(tasks.queue());
            }
            watch.response(response.status(), response.headers(), response.body());
        }
        response.map(|inner| Self { inner, watch })
    }
}

impl<B> ResponseBody<B> {
    /// The body inside.
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
        let Some(watch) = this.watch else {
            return this.inner.poll_frame(cx);
        };
        watch.before_poll();
        let polled = this.inner.as_mut().poll_frame(cx);
        watch.after_poll();
        match &polled {
            Poll::Ready(Some(Ok(frame))) => watch.frame(frame, &*this.inner),
            Poll::Ready(Some(Err(_))) => watch.body_failed(),
            Poll::Ready(None) => watch.body_ended(),
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
