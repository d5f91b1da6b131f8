//! The ways to serve a request that are compared: ours, its rivals, and the bare route.
//!
//! The same axum route, called on a current-thread runtime; each request's tasks have ended before the next. Layers stand around
//! the router: inside of it, as `Router::layer` puts them, axum adds four boxes of its own for any layer, which would make all
//! layers look alike.

use std::{convert::Infallible, future::ready, hint::black_box, pin::Pin};

use axum::{Extension, Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::yield_now,
};
use tower::{Layer, Service};
use tower_background_tasks::{BackgroundTasks, Runner};
use tower_http::trace::TraceLayer;

use super::least::{Least, List};

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One way to serve a request, to be asked again and again.
pub(crate) trait Side {
    fn requests(&mut self, count: usize) -> Pin<Box<dyn Future<Output = ()> + '_>>;
}

struct App<S> {
    service: S,
    /// Told by each blocking task.
    done: UnboundedReceiver<()>,
    blocking_tasks: usize,
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
        let mut body = std::pin::pin!(response.into_body());
        while let Some(frame) = body.frame().await {
            black_box(frame.unwrap());
        }
        for _ in 0..self.blocking_tasks {
            self.done.recv().await.unwrap();
        }
        yield_now().await; // whatever was spawned gets its turns
    }
}

pub(crate) type BoxSide = Box<dyn Side>;

/// `service` is given what each of a request's blocking tasks has to tell when it is done.
pub(crate) fn side<S, B>(
    blocking_tasks: usize,
    service: impl FnOnce(UnboundedSender<()>) -> S,
) -> BoxSide
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let (tell, done) = unbounded_channel();
    Box::new(App {
        service: service(tell),
        done,
        blocking_tasks,
    })
}

fn router() -> Router {
    Router::new().route("/", get(async || "hello"))
}

pub(crate) fn bare() -> BoxSide {
    side(0, |_| router())
}

pub(crate) fn traced() -> BoxSide {
    side(0, |_| TraceLayer::new_for_http().layer(router()))
}

pub(crate) fn idle_layer() -> BoxSide {
    side(0, |_| Runner::new().layer().layer(router()))
}

/// See `least`.
pub(crate) fn least(tasks: usize) -> BoxSide {
    let handler = async move |Extension(list): Extension<List>| {
        for _ in 0..tasks {
            list.add(ready(()));
        }
        "hello"
    };
    let router = match tasks {
        0 => router(),
        _ => Router::new().route("/", get(handler)),
    };
    side(0, |_| Least(router))
}

pub(crate) fn spawned(tasks: usize) -> BoxSide {
    let handler = async move || {
        for _ in 0..tasks {
            tokio::spawn(ready(()));
        }
        "hello"
    };
    side(0, |_| Router::new().route("/", get(handler)))
}

pub(crate) fn ours(tasks: usize) -> BoxSide {
    let handler = async move |queue: BackgroundTasks| {
        for _ in 0..tasks {
            queue.add_task(ready(()));
        }
        "hello"
    };
    side(0, |_| {
        Runner::new()
            .layer()
            .layer(Router::new().route("/", get(handler)))
    })
}

/// Like `ours`, with the queue found by [`BackgroundTasks::current`] in place of the extractor.
pub(crate) fn ours_by_current(tasks: usize) -> BoxSide {
    let handler = async move || {
        let queue = BackgroundTasks::current().unwrap();
        for _ in 0..tasks {
            queue.add_task(ready(()));
        }
        "hello"
    };
    side(0, |_| {
        Runner::new()
            .layer()
            .layer(Router::new().route("/", get(handler)))
    })
}

pub(crate) fn spawned_blocking(tasks: usize) -> BoxSide {
    side(tasks, |tell| {
        let handler = async move || {
            for _ in 0..tasks {
                let tell = tell.clone();
                tokio::task::spawn_blocking(move || tell.send(()));
            }
            "hello"
        };
        Router::new().route("/", get(handler))
    })
}

pub(crate) fn ours_blocking(tasks: usize) -> BoxSide {
    side(tasks, |tell| {
        let handler = async move |queue: BackgroundTasks| {
            for _ in 0..tasks {
                let tell = tell.clone();
                queue.add_blocking_task(move || tell.send(()));
            }
            "hello"
        };
        Runner::new()
            .layer()
            .layer(Router::new().route("/", get(handler)))
    })
}
