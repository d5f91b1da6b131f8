//! The axum extractor, in handlers, other extractors and middleware.

use axum::{
    Router,
    body::Body,
    extract::FromRequestParts,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Request, StatusCode, request::Parts};
use tower::ServiceExt;
use tower_background_tasks::{BackgroundTasks, Runner};

use crate::support::{Log, read_all, soon};

async fn answer(app: Router) -> (StatusCode, String) {
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let status = response.status();
    let text = String::from_utf8(read_all(response).await.to_vec()).unwrap();
    (status, text)
}

#[tokio::test]
async fn missing_layer_is_a_500_without_our_insides() {
    let app = Router::new().route("/", get(async |_: BackgroundTasks| "hello"));
    let (status, text) = answer(app).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text, "internal server error");
}

/// Middleware that makes a new request of the old one's parts, without its extensions.
async fn rebuild(request: Request<Body>, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    parts.extensions.clear();
    next.run(Request::from_parts(parts, body)).await
}

#[tokio::test]
async fn queue_is_found_though_middleware_drops_the_extensions() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let handler = async move |tasks: BackgroundTasks, other: Option<BackgroundTasks>| {
        tasks.add_task(handler_log.task("found"));
        other.unwrap().add_task(handler_log.task("found twice"));
        "hello"
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(from_fn(rebuild))
        .layer(runner.layer());
    assert_eq!(answer(app).await, (StatusCode::OK, "hello".into()));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["found", "found twice"]);
}

/// Middleware that answers with a response of its own, and the text of the handler's.
async fn answer_anew(request: Request<Body>, next: Next) -> Response {
    let body = next.run(request).await.into_body();
    let text = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    text.into_response()
}

#[tokio::test]
async fn returned_tasks_run_though_middleware_answers_anew() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let handler = async move |own: BackgroundTasks| {
        let tasks = BackgroundTasks::new();
        tasks.add_task(handler_log.task("returned"));
        own.add_task(handler_log.task("own"));
        (tasks, "hello")
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(from_fn(answer_anew))
        .layer(runner.layer());
    assert_eq!(answer(app).await, (StatusCode::OK, "hello".into()));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["own", "returned"]);
    assert_eq!(runner.stats().added, 2);
}

#[tokio::test]
async fn optional_queue_is_some_with_the_layer_and_none_without() {
    let app = Router::new().route(
        "/",
        get(async |tasks: Option<BackgroundTasks>| tasks.is_some().to_string()),
    );
    assert_eq!(answer(app.clone()).await, (StatusCode::OK, "false".into()));
    let app = app.layer(Runner::new().layer());
    assert_eq!(answer(app).await, (StatusCode::OK, "true".into()));
}

/// What FastAPI calls a dependency: an extractor that adds a task of its own.
struct Session(Log);

impl FromRequestParts<Log> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, log: &Log) -> Result<Self, StatusCode> {
        let tasks = BackgroundTasks::from_request_parts(parts, log)
            .await
            .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        tasks.add_task(log.task("extractor"));
        Ok(Self(log.clone()))
    }
}

#[tokio::test]
async fn tasks_of_middleware_and_extractors_precede_the_handlers() {
    let (runner, log) = (Runner::new(), Log::default());
    let middleware_log = log.clone();
    let middleware = move |tasks: BackgroundTasks, request: Request<Body>, next: Next| {
        tasks.add_task(middleware_log.task("middleware"));
        next.run(request)
    };
    let app = Router::new()
        .route(
            "/",
            get(async |Session(log): Session, tasks: BackgroundTasks| {
                tasks.add_task(log.task("handler"));
                "hello"
            }),
        )
        .layer(from_fn(middleware))
        .layer(runner.layer())
        .with_state(log.clone());
    assert_eq!(answer(app).await, (StatusCode::OK, "hello".into()));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["middleware", "extractor", "handler"]);
}

/// An extractor that rejects the request.
struct Rejects;

impl<S: Sync> FromRequestParts<S> for Rejects {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Err((StatusCode::UNAUTHORIZED, "who are you?"))
    }
}

#[tokio::test]
async fn tasks_added_before_an_extractor_rejects_run() {
    let (runner, log) = (Runner::new(), Log::default());
    let app = Router::new()
        .route("/", get(async |_: Session, _: Rejects| "not reached"))
        .layer(runner.layer())
        .with_state(log.clone());
    assert_eq!(answer(app).await.0, StatusCode::UNAUTHORIZED);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["extractor"]);
}

#[tokio::test]
async fn tasks_added_before_a_handler_returns_an_error_run() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/",
            get(async move |tasks: BackgroundTasks| {
                tasks.add_task(handler_log.task("handler"));
                Err::<(), _>(StatusCode::BAD_GATEWAY.into_response())
            }),
        )
        .layer(runner.layer());
    assert_eq!(answer(app).await.0, StatusCode::BAD_GATEWAY);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["handler"]);
}
