//! What a queue shows of itself, and running it by hand.

use std::future::pending;

use futures_util::FutureExt;
use http::Extensions;
use tower_background_tasks::{BackgroundTasks, MissingLayer, Runner, Task, TaskEnd};

use crate::support::{Log, full, get, open_response, respond, soon};

async fn send_mail() {}

#[test]
fn a_queue_shows_its_tasks_names_in_order() {
    let tasks = BackgroundTasks::new();
    assert!(tasks.is_empty());
    tasks.add_task(send_mail());
    tasks.add_task(Task::new(async {}).named("second"));
    tasks.add_blocking_task(|| ());
    tasks.add_task(Task::blocking(|| ()).named(format!("fourth of {}", 4)));
    assert_eq!(tasks.len(), 4);
    assert_eq!(
        tasks.names(),
        [
            "it::adding::send_mail",
            "second",
            "it::adding::a_queue_shows_its_tasks_names_in_order",
            "fourth of 4"
        ]
    );
}

#[test]
fn default_name_is_the_function_the_task_was_written_in() {
    let context = Task::with_context(|_| async {});
    assert!(
        format!("{context:?}").contains("written_in\""),
        "{context:?}"
    );
    let blocking = Task::blocking_with_context(|_| ());
    assert!(
        format!("{blocking:?}").contains("blocking: true"),
        "{blocking:?}"
    );
}

#[test]
fn without_the_layer_the_error_names_the_remedy() {
    let error: MissingLayer = BackgroundTasks::from_extensions(&Extensions::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is `BackgroundTasksLayer` applied")
    );
}

#[tokio::test]
async fn run_runs_the_queue_in_order_and_tells_each_end() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    tasks.add_task(log.task("async"));
    tasks.add_task(async { Err::<(), _>("no mail server") });
    tasks.add_task(async { panic!("on purpose") });
    let blocking_log = log.clone();
    tasks.add_blocking_task(move || blocking_log.write("blocking"));
    tasks.add_task(Task::new(log.task("conditional")).run_if(|_| false));
    let ends: Vec<_> = tasks.run().await.iter().map(TaskEnd::to_string).collect();
    assert_eq!(
        ends,
        [
            "completed",
            "failed: no mail server",
            "panicked: on purpose",
            "completed",
            "completed"
        ]
    );
    assert_eq!(log.lines(), ["async", "blocking", "conditional"]);
    assert!(tasks.is_empty());
    assert!(tasks.run().await.is_empty());
}

#[tokio::test]
async fn run_runs_what_tasks_add_meanwhile() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    let (again, inner) = (tasks.clone(), log.clone());
    tasks.add_task(async move { again.add_task(inner.task("nested")) });
    tasks.add_task(log.task("queued"));
    assert_eq!(tasks.run().await.len(), 3);
    assert_eq!(log.lines(), ["queued", "nested"]);
}

#[test]
fn run_needs_no_runtime() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    tasks.add_task(log.task("async"));
    let blocking_log = log.clone();
    tasks.add_blocking_task(move || blocking_log.write("blocking"));
    let ends = tasks.run().now_or_never().unwrap();
    assert_eq!(ends.len(), 2);
    assert_eq!(log.lines(), ["async", "blocking"]);
}

#[tokio::test]
async fn dropping_run_leaves_the_rest_in_the_queue() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    tasks.add_task(pending::<()>());
    tasks.add_task(log.task("second"));
    assert!(tasks.run().now_or_never().is_none());
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks.run().await.len(), 1);
    assert_eq!(log.lines(), ["second"]);
}

#[tokio::test]
async fn run_in_a_handler_takes_the_requests_tasks_once() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(log.task("by hand"));
        assert_eq!(tasks.run().now_or_never().unwrap().len(), 1);
        tasks.add_task(log.task("after the response"));
        full("")
    })
    .await;
    assert_eq!(log.lines(), ["by hand"]);
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["by hand", "after the response"]);
    assert_eq!((runner.stats().added, runner.stats().completed), (2, 2));
}

#[tokio::test]
async fn what_a_task_captured_is_dropped_with_it() {
    let runner = Runner::new();
    let resource = std::sync::Arc::new(());
    let captured = resource.clone();
    runner.add_task(async move { assert_eq!(std::sync::Arc::strong_count(&captured), 2) });
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 1);
    assert_eq!(std::sync::Arc::strong_count(&resource), 1);
}

#[tokio::test]
async fn tasks_of_no_request_start_at_once_without_a_response() {
    let (runner, log) = (Runner::new(), Log::default());
    let context_log = log.clone();
    runner.add_task(
        Task::with_context(|cx| async move {
            context_log.write(format!("{} {:?}", cx.name(), cx.response()));
        })
        .named("by-itself")
        .run_if(|_| false),
    );
    soon(runner.idle()).await;
    let blocking_log = log.clone();
    runner.add_blocking_task(move || blocking_log.write("blocking"));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["by-itself None", "blocking"]);
    assert_eq!(runner.stats().completed, 2);
}

#[tokio::test]
async fn idle_returns_at_once_when_quiet_and_wakes_every_waiter() {
    let runner = Runner::new();
    assert!(runner.idle().now_or_never().is_some());
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    runner.add_task(gate);
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let runner = runner.clone();
            tokio::spawn(async move { runner.idle().await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(runner.idle().now_or_never().is_none());
    open.send(()).unwrap();
    for waiter in waiters {
        soon(waiter).await.unwrap();
    }
}

#[tokio::test]
async fn run_finds_nothing_once_the_runner_has_the_tasks() {
    let (runner, log) = (Runner::new(), Log::default());
    let tasks = BackgroundTasks::new();
    tasks.add_task(log.task("1"));
    tasks.add_task(log.task("2"));
    drop(runner.attach(full("hello"), tasks.clone()));
    assert!(tasks.run().await.is_empty());
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["1", "2"]);
    assert!(tasks.run().await.is_empty());
}

#[tokio::test]
async fn run_before_the_responses_end_shows_no_response() {
    let runner = Runner::new();
    let (response, tasks) = open_response(&runner);
    tasks.add_task(Task::with_context(|cx| async move {
        assert!(cx.response().is_none());
    }));
    let ends = tasks.run().await;
    assert!(matches!(ends[..], [TaskEnd::Completed]), "{ends:?}");
    drop(response);
}
