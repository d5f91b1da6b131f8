//! [`ResponseFuture`]: sees the response head, or that there will be none.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::{ResponseBody, outcome::EndWatch};

pin_project! {
    /// The future of [`BackgroundTasksService`](crate::BackgroundTasksService).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // `Some` until the response takes it. Behind `inner`, so that where its drop is the end, what the handler holds is dropped before
        // its tasks start.
        watch: Option<EndWatch>,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, watch: EndWatch) -> Self {
        Self {
            inner,
            watch: Some(watch),
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
        if let Some(watch) = this.watch {
            watch.before_poll();
        }
        let entered = this.watch.as_mut().map(EndWatch::enter);
        let polled = this.inner.poll(cx);
        drop(entered);
        if let Some(watch) = this.watch {
            watch.after_poll();
        }
        let result = ready!(polled);
        let watch = this.watch.take();
        Poll::Ready(match result {
            Ok(response) => Ok(ResponseBody::watched(response, watch)),
            Err(error) => {
                if let Some(mut watch) = watch {
                    watch.service_failed();
                }
                Err(error)
            }
        })
    }
}
