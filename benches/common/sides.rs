//! The ways to serve a request that are compared: ours, its rivals, and the bare route.
//!
//! The same axum route, called on a current-thread runtime; each request's tasks have ended before
//! the next. Layers stand around the router. Inside of it, as `Router::layer` puts them, axum adds
//! three or four boxes of its own for any layer, which would make all layers look alike.

use std::{
    convert::Infallible,
    future::ready,
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::yield_now,
};
use tower::{Layer, Service, service_fn};
use tower_background_tasks::{BackgroundTasks, Runner};
use tower_http::trace::TraceLayer;
use tracing::{Instrument, info_span};

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One way to serve a request, to be asked again and again.
pub(crate) trait Side {
    fn requests(&mut self, count: usize) -> Pin<Box<dyn Future<Output = ()> + '_>>;
}

struct App<S> {
    service: S,
    /// Told by the last of a request's blocking tasks alone, as telling wakes this thread.
    done: UnboundedReceiver<()>,
    has_blocking_tasks: bool,
}

impl<S, B> Side for App<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    fn requests(&mut self, count: usize) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move {
            for _ in 0..count {
                self.request().await;
            }
        })
    }
}

impl<S, B> App<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    /// One request, until its tasks have ended.
    async fn request(&mut self) {
        let request = Request::get("/").body(Body::empty()).unwrap();
        // A router is always ready.
        let response = self.service.call(request).await.unwrap();
        {
            let mut body = std::pin::pin!(response.into_body());
            while let Some(frame) = body.frame().await {
                black_box(frame.unwrap());
            }
        } // and is dropped
        if self.has_blocking_tasks {
            self.done.recv().await.unwrap();
        }
        yield_now().await; // what was spawned gets its turns
    }
}

pub(crate) type BoxSide = Box<dyn Side>;

pub(crate) fn side<S, B>(service: S) -> BoxSide
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    Box::new(App {
        service,
        done: unbounded_channel().1,
        has_blocking_tasks: false,
    })
}

/// Each request in a span of its own.
pub(crate) fn in_span<S, B>(mut service: S) -> BoxSide
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let call = move |request: Request<Body>| {
        let (method, path) = (request.method(), request.uri().path());
        let span = info_span!("request", %method, path);
        service.call(request).instrument(span)
    };
    side(service_fn(call))
}

/// `service` is given what a request's blocking tasks count down.
fn blocking_side<S, B>(service: impl FnOnce(Countdown) -> S) -> BoxSide
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let (tell, done) = unbounded_channel();
    Box::new(App {
        service: service(Countdown {
            left: Arc::default(),
            tell,
        }),
        done,
        has_blocking_tasks: true,
    })
}

/// The tasks of one request at a time that have yet to end.
#[derive(Clone)]
struct Countdown {
    left: Arc<AtomicUsize>,
    tell: UnboundedSender<()>,
}

impl Countdown {
    fn begin(&self, tasks: usize) {
        self.left.store(tasks, Ordering::Relaxed);
    }

    fn task(&self) -> impl FnOnce() + Send + 'static {
        let this = self.clone();
        move || {
            if this.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                this.tell.send(()).unwrap();
            }
        }
    }
}

/// A router whose state is given, as `axum::serve` does. Otherwise it would be given at each request.
fn router() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .with_state(())
}

pub(crate) fn bare() -> BoxSide {
    side(router())
}

pub(crate) fn traced() -> BoxSide {
    side(TraceLayer::new_for_http().layer(router()))
}

pub(crate) fn idle_layer() -> BoxSide {
    side(Runner::new().layer().layer(router()))
}

pub(crate) fn spawned(tasks: usize) -> BoxSide {
    let handler = async move || {
        for _ in 0..tasks {
            tokio::spawn(ready(()));
        }
        "hello"
    };
    side(Router::new().route("/", get(handler)).with_state(()))
}

pub(crate) fn ours(tasks: usize) -> BoxSide {
    let handler = async move |queue: BackgroundTasks| {
        for _ in 0..tasks {
            queue.add_task(ready(()));
        }
        "hello"
    };
    let router = Router::new().route("/", get(handler)).with_state(());
    side(Runner::new().layer().layer(router))
}

pub(crate) fn spawned_blocking(tasks: usize) -> BoxSide {
    blocking_side(|countdown| {
        let handler = async move || {
            countdown.begin(tasks);
            for _ in 0..tasks {
                tokio::task::spawn_blocking(countdown.task());
            }
            "hello"
        };
        Router::new().route("/", get(handler)).with_state(())
    })
}

pub(crate) fn ours_blocking(tasks: usize) -> BoxSide {
    blocking_side(|countdown| {
        let handler = async move |queue: BackgroundTasks| {
            countdown.begin(tasks);
            for _ in 0..tasks {
                queue.add_blocking_task(countdown.task());
            }
            "hello"
        };
        Runner::new()
            .layer()
            .layer(Router::new().route("/", get(handler)).with_state(()))
    })
}
