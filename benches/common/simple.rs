//! A simple layer of this design, without any of its promises: it puts a list of boxed futures into the request, looks at the clock,
//! wraps the response body, and spawns what is in the list when the body is dropped. Ours has to pay for its promises with what it
//! saves beside that: queues and tasks of the runtime that are used again.

use std::{
    cell::Cell,
    hint::black_box,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// In the request's extensions.
#[derive(Clone, Default)]
pub(crate) struct List(Arc<Mutex<Vec<Task>>>);

impl List {
    pub(crate) fn add(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap().push(Box::pin(task));
    }
}

thread_local! {
    static CURRENT: Cell<Option<List>> = const { Cell::new(None) };
}

/// Calls `f`, with `list` as the thread's current one if it is to be that.
fn in_scope<R>(has_current: bool, list: &mut Option<List>, f: impl FnOnce() -> R) -> R {
    if !has_current {
        return f();
    }
    let outer = CURRENT.replace(list.take());
    let result = f();
    *list = CURRENT.replace(outer);
    result
}

/// The end of a response.
struct End {
    list: Option<List>,
    begun: Instant,
}

impl Drop for End {
    fn drop(&mut self) {
        black_box(self.begun);
        let Some(list) = &self.list else { return };
        let tasks = std::mem::take(&mut *list.0.lock().unwrap());
        if !tasks.is_empty() {
            tokio::spawn(async move {
                for task in tasks {
                    task.await;
                }
            });
        }
    }
}

#[derive(Clone)]
pub(crate) struct Simple<S> {
    pub(crate) inner: S,
    /// Makes the list the thread's current one while the service runs.
    pub(crate) has_current: bool,
}

pin_project! {
    pub(crate) struct SimpleFuture<F> {
        #[pin]
        inner: F,
        end: Option<End>,
        has_current: bool,
    }
}

pin_project! {
    pub(crate) struct SimpleBody<B> {
        #[pin]
        inner: B,
        end: Option<End>,
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Simple<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<SimpleBody<ResBody>>;
    type Error = S::Error;
    type Future = SimpleFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let list = List::default();
        request.extensions_mut().insert(list.clone());
        let mut end = End {
            list: Some(list),
            begun: Instant::now(),
        };
        let inner = in_scope(self.has_current, &mut end.list, || self.inner.call(request));
        SimpleFuture {
            inner,
            end: Some(end),
            has_current: self.has_current,
        }
    }
}

impl<F, B, E> Future for SimpleFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<SimpleBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut nothing = None;
        let list = this.end.as_mut().map_or(&mut nothing, |end| &mut end.list);
        let response = ready!(in_scope(*this.has_current, list, || this.inner.poll(cx)))?;
        let end = this.end.take();
        Poll::Ready(Ok(response.map(|inner| SimpleBody { inner, end })))
    }
}

impl<B: Body> Body for SimpleBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        drop(this.end.take_if(|_| frame.is_none()));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
