//! The least layer of this design that we know: it puts a handle to a list into the request and makes it the thread's current one, looks
//! at the clock when the request arrives and when a response with tasks has ended, wraps the response body, and has one boxed future
//! after another run off the connection. What can be used again is: lists, and the tasks of the runtime that run them.
//!
//! It keeps none of the promises: it contains, counts, names, limits and aborts nothing, does not know how the response ended, and
//! loses what is added after its tasks have run. A layer that keeps them starts from here. (It is for one runtime a thread, and gives back no
//! room.)

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    hint::black_box,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// In the request's extensions.
#[derive(Clone, Default)]
pub(crate) struct List(Arc<Mutex<VecDeque<Task>>>);

thread_local! {
    static SPARE: RefCell<Vec<List>> = const { RefCell::new(Vec::new()) };
    static CURRENT: Cell<Option<List>> = const { Cell::new(None) };
    static FREE: RefCell<Vec<Arc<Lane>>> = const { RefCell::new(Vec::new()) };
}

impl List {
    fn take() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        spare.unwrap_or_default()
    }

    pub(crate) fn add(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap().push_back(Box::pin(task));
    }

    /// For another request, if nobody else has it.
    fn keep(mut self) {
        if Arc::get_mut(&mut self.0).is_some_and(|tasks| tasks.get_mut().unwrap().is_empty()) {
            SPARE.with_borrow_mut(|spare| spare.push(self));
        }
    }

    /// Without the lock where nobody else has the list.
    fn with<R>(&mut self, f: impl FnOnce(&mut VecDeque<Task>) -> R) -> R {
        match Arc::get_mut(&mut self.0) {
            Some(tasks) => f(tasks.get_mut().unwrap()),
            None => f(&mut self.0.lock().unwrap()),
        }
    }
}

/// A task of the runtime that runs one list after another.
#[derive(Default)]
struct Lane {
    given: Mutex<Option<List>>,
    waker: OnceLock<Waker>,
}

impl Lane {
    fn give(list: List) {
        let lane = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        *lane.given.lock().unwrap() = Some(list);
        match lane.waker.get() {
            Some(waker) => waker.wake_by_ref(),
            None => drop(tokio::spawn(lane.run())),
        }
    }

    async fn run(self: Arc<Self>) {
        let (mut list, mut tasks) = (None::<List>, VecDeque::<Task>::new());
        poll_fn(|cx| {
            loop {
                if let Some(task) = tasks.front_mut() {
                    ready!(task.as_mut().poll(cx));
                    tasks.pop_front();
                    continue;
                }
                let mut of_request = match list.take() {
                    Some(list) => list,
                    None => ready!(self.poll_given()),
                };
                of_request.with(|added| mem::swap(added, &mut tasks)); // the room of both is used again
                if tasks.is_empty() {
                    of_request.keep();
                    self.waker.get_or_init(|| cx.waker().clone());
                    FREE.with_borrow_mut(|free| free.push(Arc::clone(&self)));
                    return Poll::Pending;
                }
                list = Some(of_request);
            }
        })
        .await
    }

    fn poll_given(&self) -> Poll<List> {
        let given = self.given.lock().unwrap().take();
        given.map_or(Poll::Pending, Poll::Ready)
    }
}

/// The end of a response.
struct End {
    list: Option<List>,
    begun: Instant,
}

impl Drop for End {
    fn drop(&mut self) {
        let Some(mut list) = self.list.take() else {
            return;
        };
        if list.with(|tasks| tasks.is_empty()) {
            black_box(self.begun);
            list.keep();
        } else {
            black_box(self.begun.elapsed());
            Lane::give(list);
        }
    }
}

/// Calls `f`, with `list` as the thread's current one.
fn in_scope<R>(list: &mut Option<List>, f: impl FnOnce() -> R) -> R {
    let outer = CURRENT.replace(list.take());
    let result = f();
    *list = CURRENT.replace(outer);
    result
}

#[derive(Clone)]
pub(crate) struct Least<S> {
    pub(crate) inner: S,
}

pin_project! {
    pub(crate) struct LeastFuture<F> {
        #[pin]
        inner: F,
        end: Option<End>,
    }
}

pin_project! {
    pub(crate) struct LeastBody<B> {
        #[pin]
        inner: B,
        end: Option<End>,
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Least<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<LeastBody<ResBody>>;
    type Error = S::Error;
    type Future = LeastFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let list = List::take();
        request.extensions_mut().insert(list.clone());
        let mut end = End {
            list: Some(list),
            begun: Instant::now(),
        };
        let inner = in_scope(&mut end.list, || self.inner.call(request));
        LeastFuture {
            inner,
            end: Some(end),
        }
    }
}

impl<F, B, E> Future for LeastFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<LeastBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut nothing = None;
        let list = this.end.as_mut().map_or(&mut nothing, |end| &mut end.list);
        let response = ready!(in_scope(list, || this.inner.poll(cx)))?;
        let end = this.end.take();
        Poll::Ready(Ok(response.map(|inner| LeastBody { inner, end })))
    }
}

impl<B: Body> Body for LeastBody<B> {
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
