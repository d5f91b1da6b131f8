//! Stand-alone queues: attached to a response, merged behind the request's own, or never taken.

use std::sync::Arc;

use axum::{Router, response::IntoResponse, routing::get};
use http::Request;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_background_tasks::{BackgroundTasks, ResponseEnd, Runner};

use crate::support::{Log, Outcomes, full, read_all, soon};

fn request() -> Request<axum::body::Body> {
    Request::get("/").body(axum::body::Body::empty()).unwrap()
}

#[tokio::test]
async fn attached_tasks_run_at_the_responses_end_without_any_layer() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let tasks = BackgroundTasks::new();
    tasks.add_task(outcomes.task());
    let response = runner.attach(full("hello"), tasks);
    let stats = runner.stats();
    assert_eq!(
        (stats.added, stats.awaiting_response, stats.pending),
        (1, 1, 0)
    );
    assert_eq!(read_all(response).await, "hello");
    let outcome = outcomes.only(&runner).await;
    assert_eq!(
        (outcome.end, outcome.body_bytes),
        (ResponseEnd::Completed, 5)
    );
}

#[test]
fn a_long_chain_of_merged_queues_is_dropped_without_recursion() {
    let first = BackgroundTasks::new();
    let mut last = first.clone();
    for _ in 0..100_000 {
        let next = BackgroundTasks::new();
        // Returned together, the one that comes second merges into the first.
        drop((next.clone(), last, "hello").into_response());
        last = next;
    }
    drop(last);
    drop(first);
}

#[tokio::test]
async fn a_queue_still_takes_tasks_after_it_was_attached() {
    let (runner, log) = (Runner::new(), Log::default());
    let tasks = BackgroundTasks::new();
    tasks.add_task(log.task("before"));
    let response = runner.attach(full("hello"), tasks.clone());
    tasks.add_task(log.task("while it streams"));
    assert_eq!(tasks.len(), 2);
    drop(response);
    soon(runner.idle()).await;
    tasks.add_task(log.task("late"));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["before", "while it streams", "late"]);
    assert_eq!(runner.stats().completed, 3);
}

#[tokio::test]
async fn returned_tasks_run_behind_the_requests_own_in_order() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/",
            get(async move |tasks: BackgroundTasks| {
                let (first, second) = (BackgroundTasks::new(), BackgroundTasks::new());
                second.add_task(handler_log.task("second attached"));
                first.add_task(handler_log.task("first attached"));
                tasks.add_task(handler_log.task("handler's"));
                (first, second, "hello")
            }),
        )
        .layer(runner.layer());
    let response = app.oneshot(request()).await.unwrap();
    assert_eq!(read_all(response).await, "hello");
    soon(runner.idle()).await;
    assert_eq!(
        log.lines(),
        ["handler's", "first attached", "second attached"]
    );
    assert_eq!(runner.stats().added, 3);
}

#[tokio::test]
async fn returning_the_requests_own_queue_changes_nothing() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/",
            get(async move |tasks: BackgroundTasks| {
                tasks.add_task(handler_log.task("once"));
                (tasks.clone(), tasks, "hello")
            }),
        )
        .layer(runner.layer());
    drop(app.oneshot(request()).await.unwrap());
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["once"]);
}

#[tokio::test]
async fn of_two_layers_only_the_inner_takes_attached_tasks() {
    let (inner, outer, log) = (Runner::new(), Runner::new(), Log::default());
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/",
            get(async move || {
                let tasks = BackgroundTasks::new();
                tasks.add_task(handler_log.task("once"));
                (tasks, "hello")
            }),
        )
        .layer(inner.layer())
        .layer(outer.layer());
    drop(app.oneshot(request()).await.unwrap());
    soon(inner.idle()).await;
    soon(outer.idle()).await;
    assert_eq!(log.lines(), ["once"]);
    assert_eq!((inner.stats().added, outer.stats().added), (1, 0));
}

#[tokio::test]
async fn ten_stacked_layers_each_run_their_own() {
    let (runner, log) = (Runner::new(), Log::default());
    let mut app = Router::new().route("/", get(async || "hello"));
    for level in 0..10 {
        let log = log.clone();
        app = app
            .layer(axum::middleware::from_fn(
                move |tasks: BackgroundTasks, request, next: axum::middleware::Next| {
                    tasks.add_task(log.task(format!("level {level}")));
                    next.run(request)
                },
            ))
            .layer(runner.layer());
    }
    let response = app.oneshot(request()).await.unwrap();
    assert_eq!(read_all(response).await, "hello");
    soon(runner.idle()).await;
    let mut lines = log.lines();
    lines.sort();
    let expected: Vec<_> = (0..10).map(|level| format!("level {level}")).collect();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn queue_that_no_response_takes_drops_its_tasks_unrun() {
    let log = Log::default();
    let captured = Arc::new(());
    let tasks = BackgroundTasks::new();
    let (task, kept) = (log.task("must not run"), captured.clone());
    tasks.add_task(async move {
        task.await;
        drop(kept);
    });
    drop(tasks);
    assert_eq!(Arc::strong_count(&captured), 1);
    assert!(log.lines().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merging_while_another_thread_adds_loses_and_doubles_nothing() {
    for _ in 0..200 {
        let runner = Runner::new();
        let tasks = BackgroundTasks::new();
        let adding = tasks.clone();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let adder = std::thread::spawn(move || {
            for number in 0..100 {
                let sender = sender.clone();
                adding.add_task(async move { sender.send(number).map_err(|_| "nobody listens") });
            }
        });
        drop(runner.attach(full("hello"), tasks));
        adder.join().unwrap();
        soon(runner.idle()).await;
        let mut numbers = Vec::new();
        while let Some(number) = receiver.recv().await {
            numbers.push(number);
        }
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert_eq!(runner.stats().completed, 100);
    }
}
