//! The layer changes nothing that anyone can see.

use std::{
    convert::Infallible,
    future::ready,
    task::{Context, Poll, Waker},
};

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service};
use tower_background_tasks::{BackgroundTasks, ResponseBody, Runner};

use crate::support::{ScriptedBody, Server, Step, get as get_request, respond};

fn app() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/", post(async |body: String| body))
        .route("/empty", get(async || ()))
        .route("/no-content", get(async || StatusCode::NO_CONTENT))
        .route("/streamed", get(async || Body::from_stream(chunks())))
        .route(
            "/sized",
            get(async || ([("content-length", "6")], Body::from_stream(chunks()))),
        )
        .route(
            "/panics",
            get(async || -> () { panic!("on purpose: a handler") }),
        )
}

fn chunks() -> impl futures_util::Stream<Item = Result<&'static str, Infallible>> {
    stream::iter(["one", "two"].map(Ok))
}

/// What comes over the wire, without the date.
async fn wire(app: Router, request: &str) -> String {
    let server = Server::start(app).await;
    let mut client = server.connect().await;
    client.send(request).await;
    let response = client.read_to_close().await;
    response
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("date: "))
        .collect()
}

#[tokio::test]
async fn wire_bytes_are_the_same_with_and_without_the_layer() {
    let runner = Runner::new();
    for (method, path) in [
        ("GET", "/"),
        ("HEAD", "/"),
        ("POST", "/"),
        ("GET", "/missing"),
        ("PUT", "/"),
        ("GET", "/empty"),
        ("GET", "/no-content"),
        ("GET", "/streamed"),
        ("HEAD", "/streamed"),
        ("GET", "/sized"),
        ("GET", "/panics"),
    ] {
        for version in ["1.1", "1.0"] {
            let request = format!(
                "{method} {path} HTTP/{version}\r\nhost: here\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody"
            );
            let without = wire(app(), &request).await;
            assert_eq!(without.is_empty(), path == "/panics");
            let with = wire(app().layer(runner.layer()), &request).await;
            assert_eq!(with, without, "{request}");
            let busy = axum::middleware::from_fn(
                async |tasks: BackgroundTasks, request, next: axum::middleware::Next| {
                    tasks.add_task(async {});
                    next.run(request).await
                },
            );
            let with_task = wire(app().layer(busy).layer(runner.layer()), &request).await;
            assert_eq!(with_task, without, "{request}");
        }
    }
}

#[tokio::test]
async fn size_hint_end_and_frames_are_the_inner_bodys() {
    for knows_its_end in [true, false] {
        let mut script = ScriptedBody::new([Step::Data(b"a"), Step::Data(b""), Step::Trailers]);
        script.knows_its_end = knows_its_end;
        script.size_hint = SizeHint::with_exact(7);
        let mut script = Some(script);
        let response = respond(&Runner::new(), get_request("/"), {
            let script = std::sync::Arc::new(std::sync::Mutex::new(script.take()));
            move |_| Response::new(script.lock().unwrap().take().unwrap())
        })
        .await;
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(7));
        assert!(!body.is_end_stream());
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            "a"
        );
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            ""
        );
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert_eq!(body.is_end_stream(), knows_its_end);
        assert!(body.frame().await.is_none());
    }
}

/// Ready on every second poll, and broken in the end.
#[derive(Clone, Default)]
struct Flaky {
    polls: usize,
}

impl Service<Request<()>> for Flaky {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.polls += 1;
        match self.polls {
            1 => Poll::Pending,
            2 => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err("broken")),
        }
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Err("called"))
    }
}

#[tokio::test]
async fn readiness_and_errors_are_the_inner_services() {
    let mut service = Runner::new().layer().layer(Flaky::default());
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(service.poll_ready(&mut cx), Poll::Pending);
    assert_eq!(service.poll_ready(&mut cx), Poll::Ready(Ok(())));
    assert_eq!(service.call(get_request("/")).await.unwrap_err(), "called");
    assert_eq!(service.poll_ready(&mut cx), Poll::Ready(Err("broken")));
    assert_eq!(service.get_ref().polls, 3);
}

#[test]
fn default_body_is_its_inner_body_without_a_layer() {
    let body = ResponseBody::<Full<Bytes>>::default();
    assert!(body.is_end_stream());
}

#[test]
fn public_types_are_send_sync_and_clone_like_their_insides() {
    fn all<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    all::<BackgroundTasks>();
    all::<Runner>();
    all::<tower_background_tasks::BackgroundTasksLayer>();
    all::<tower_background_tasks::BackgroundTasksService<()>>();
    all::<tower_background_tasks::TaskContext>();
    all::<tower_background_tasks::ResponseOutcome>();
    fn send<T: Send + 'static>() {}
    send::<tower_background_tasks::Task>();
    send::<ResponseBody<Full<Bytes>>>();
    send::<tower_background_tasks::ResponseFuture<()>>();
}
