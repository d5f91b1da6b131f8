//! [`DetachedLayer`]: handlers that continue when their clients disconnect.

use std::{
    fmt,
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    body::ResponseBody,
    future::ResponseFuture,
    layer::BackgroundTasksLayer,
    service::{follow, queue_of},
    shield::Shield,
};
use crate::Runner;

/// Gives each request its queue, as [`BackgroundTasksLayer`] does, and runs each handler as a task
/// of the runner. Made by [`BackgroundTasksLayer::detached`].
#[derive(Clone, Debug)]
pub struct DetachedLayer {
    runner: Runner,
    location: &'static Location<'static>,
}

/// Runs each handler as a task of its runner. Made by [`DetachedLayer`].
#[derive(Clone, Debug)]
pub struct DetachedService<S> {
    inner: S,
    layer: DetachedLayer,
}

impl BackgroundTasksLayer {
    /// Makes a layer whose handlers continue when their clients disconnect.
    ///
    /// When a client disconnects, the server drops its handler at whatever await point it has
    /// reached. Behind this layer, the handler is a task of the runner, named `handler`. All that
    /// [`BackgroundTasks::shield`](crate::BackgroundTasks::shield) says applies to it. If the
    /// client has disconnected, the response is dropped unread. The request's tasks then run with
    /// the response's status and the end [`Aborted`](crate::ResponseEnd::Aborted).
    ///
    /// Use it only on the routes that need it, as each of their requests is one more task. A
    /// handler that waits for its client, for example for the rest of an upload, ends when the
    /// server reports that the client is gone. A handler that never ends stays until the runner
    /// shuts down, unless it has a limit of its own.
    ///
    /// If a handler is aborted by [`Runner::cancel`](crate::Runner::cancel) or a shutdown, the
    /// response is a 503 without a body. This is why the body must be `Default`.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_background_tasks::{BackgroundTasks, Runner};
    ///
    /// async fn order(tasks: BackgroundTasks) -> &'static str {
    ///     // … pay, then save: the two happen both, though the client leaves between them.
    ///     tasks.add_task(async { println!("mail") });
    ///     "ordered"
    /// }
    ///
    /// let runner = Runner::new();
    /// let app: Router = Router::new()
    ///     .route("/order", post(order))
    ///     .layer(runner.layer().detached());
    /// ```
    #[track_caller]
    pub fn detached(self) -> DetachedLayer {
        DetachedLayer {
            runner: self.runner().clone(),
            location: Location::caller(),
        }
    }
}

impl<S> Layer<S> for DetachedLayer {
    type Service = DetachedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let layer = self.clone();
        DetachedService { inner, layer }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for DetachedService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ResBody: Body + Default + Send + 'static,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = DetachedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let queue = queue_of(&self.layer.runner, &mut request, true);
        let handler = follow(&mut self.inner, request, Arc::clone(&queue));
        // The handler's future enters its queue itself.
        let shield = Shield::start(
            &queue,
            "handler".into(),
            self.layer.location,
            handler,
            |handler| handler,
        );
        DetachedFuture { shield }
    }
}

pin_project! {
    /// The future of [`DetachedService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct DetachedFuture<F>
    where
        ResponseFuture<F>: Future,
    {
        #[pin]
        shield: Shield<ResponseFuture<F>>,
    }
}

impl<F, B, E> Future for DetachedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + Default,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let finished = ready!(self.project().shield.poll(cx));
        Poll::Ready(finished.unwrap_or_else(|_aborted| {
            let mut response = Response::new(ResponseBody::default());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        }))
    }
}

impl<F> fmt::Debug for DetachedFuture<F>
where
    ResponseFuture<F>: Future,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedFuture").finish_non_exhaustive()
    }
}
