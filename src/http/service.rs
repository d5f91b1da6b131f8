//! [`BackgroundTasksService`].

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request, Response};
use http_body::Body;
use tower::Service;

use super::{body::ResponseBody, end_guard::EndGuard, future::ResponseFuture};
use crate::{BackgroundTasks, Runner, queue::Queue};

/// Gives each request its queue, and follows its response. Made by
/// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
#[derive(Clone, Debug)]
pub struct BackgroundTasksService<S> {
    inner: S,
    runner: Runner,
}

impl<S> BackgroundTasksService<S> {
    /// Wraps `inner`. `runner` runs the tasks of its requests.
    pub fn new(inner: S, runner: Runner) -> Self {
        Self { inner, runner }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for BackgroundTasksService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        follow(&mut self.inner, &self.runner, request).1
    }
}

/// Gives `request` its queue, calls `inner` with it, and follows the response.
pub(super) fn follow<S, ReqBody>(
    inner: &mut S,
    runner: &Runner,
    mut request: Request<ReqBody>,
) -> (Arc<Queue>, ResponseFuture<S::Future>)
where
    S: Service<Request<ReqBody>>,
{
    let owner = runner.owner();
    let mut extensions = Extensions::new();
    let on_request = &owner.shared.settings.on_request;
    if !on_request.is_empty() {
        let (parts, body) = request.into_parts();
        for note in on_request {
            note(&parts, &mut extensions);
        }
        request = Request::from_parts(parts, body);
    }
    let queue = Queue::of_request(owner, &request, extensions);
    let mut guard = EndGuard::new(Arc::clone(&queue), request.method(), request.version());
    let tasks = BackgroundTasks::of(Arc::clone(&queue));
    request.extensions_mut().insert(tasks);
    let entered = guard.enter();
    let future = inner.call(request);
    drop(entered);
    (queue, ResponseFuture::new(future, guard))
}
