//! [`BackgroundTasksService`].

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request, Response, request::Parts};
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

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let queue = queue_of(&self.runner, &mut request, false);
        follow(&mut self.inner, request, queue)
    }
}

/// Makes the queue of `request`. The handler `is_detached` if it is a task of the runner.
pub(super) fn queue_of<B>(
    runner: &Runner,
    request: &mut Request<B>,
    is_detached: bool,
) -> Arc<Queue> {
    let owner = runner.owner();
    let mut noted = Extensions::new();
    let on_request = &owner.shared.settings.on_request;
    if !on_request.is_empty() {
        with_parts(request, |parts| {
            on_request.iter().for_each(|note| note(parts, &mut noted));
        });
    }
    Queue::of_request(owner, request, noted, is_detached)
}

/// Passes the head of a request to `f`.
#[cold]
fn with_parts<B>(request: &mut Request<B>, f: impl FnOnce(&Parts)) {
    let (mut parts, ()) = Request::new(()).into_parts();
    let mut swap = |parts: &mut Parts| {
        mem::swap(request.method_mut(), &mut parts.method);
        mem::swap(request.uri_mut(), &mut parts.uri);
        mem::swap(request.version_mut(), &mut parts.version);
        mem::swap(request.headers_mut(), &mut parts.headers);
        mem::swap(request.extensions_mut(), &mut parts.extensions);
    };
    swap(&mut parts);
    f(&parts);
    swap(&mut parts);
}

/// Calls `inner` with `request`, adds `queue` to its extensions, and follows the response.
pub(super) fn follow<S, B>(
    inner: &mut S,
    mut request: Request<B>,
    queue: Arc<Queue>,
) -> ResponseFuture<S::Future>
where
    S: Service<Request<B>>,
{
    let mut guard = EndGuard::new(Arc::clone(&queue), request.method(), request.version());
    request.extensions_mut().insert(BackgroundTasks::of(queue));
    let entered = guard.enter();
    let future = inner.call(request);
    drop(entered);
    ResponseFuture::new(future, guard)
}
