//! Tasks that wait for a commit: released in order, or skipped.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use http::Request;
use tower::{Layer, Service, service_fn};
use tower_background_tasks::{
    AddTaskError, BackgroundTasks, Held, Runner, SkipReason, Task, TaskEnd,
};

use crate::support::{Log, PanicsWhenDropped, full, get, open_response, respond, soon, turns};

/// How each task ended.
type Ends = Arc<Mutex<Vec<String>>>;

fn observed() -> (Runner, Ends) {
    let ends = Ends::default();
    let told = Arc::clone(&ends);
    let builder = Runner::builder().on_task_end(move |report| {
        let not_released = matches!(report.end(), TaskEnd::Skipped(SkipReason::NotReleased));
        let end = if not_released {
            "not released"
        } else {
            report.end().as_str()
        };
        told.lock()
            .unwrap()
            .push(format!("{} {end}", report.name()));
    });
    (builder.build(), ends)
}

fn told(ends: &Ends) -> Vec<String> {
    ends.lock().unwrap().clone()
}

/// A task that notes that it ran.
fn noting(log: &Log, name: &'static str) -> Task {
    Task::new(log.task(name)).named(name)
}

#[tokio::test]
async fn released_tasks_go_behind_what_is_queued() {
    let (runner, log) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    let held = tasks.hold();
    held.add_task(log.task("held 1"));
    held.add_task(log.task("held 2"));
    tasks.add_task(log.task("queued"));
    let clone = BackgroundTasks::clone(&held);
    held.release();
    tasks.add_task(log.task("behind"));
    clone.add_task(log.task("by a clone, later"));
    drop(response);
    soon(runner.idle()).await;
    let expected = ["queued", "held 1", "held 2", "behind", "by a clone, later"];
    assert_eq!(log.lines(), expected);
    assert_eq!(runner.stats().completed, 5);
}

#[tokio::test]
async fn unreleased_tasks_are_skipped_counted_and_told_once() {
    let ((runner, ends), log) = (observed(), Log::default());
    let (response, tasks) = open_response(&runner);
    let held = tasks.hold();
    held.add_task(noting(&log, "mail"));
    tasks.add_task(noting(&log, "audit"));
    let late = BackgroundTasks::clone(&held);
    drop(held);
    assert_eq!(told(&ends), ["mail not released"]);
    late.add_task(noting(&log, "late"));
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["audit"]);
    let expected = ["mail not released", "late not released", "audit completed"];
    assert_eq!(told(&ends), expected);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.skipped, stats.completed), (3, 2, 1));
    assert_eq!((stats.pending, runner.tasks().len()), (0, 0));
}

#[tokio::test]
async fn held_tasks_have_numbers_and_are_listed_at_once() {
    let runner = Runner::builder().max_awaiting_response(1).build();
    let (response, tasks) = open_response(&runner);
    let held = tasks.hold();
    let id = held.try_add_task(async {}).unwrap();
    let awaiting = runner.stats().awaiting_response;
    assert_eq!((runner.tasks()[0].id(), awaiting), (id, 1));
    assert_eq!((held.len(), tasks.len()), (1, 0));
    let refused = held.try_add_task(async {});
    assert!(matches!(refused, Err(AddTaskError::FullOfAwaiting(_))));
    assert!(runner.cancel(id));
    held.try_add_task(async {}).unwrap();
    held.release();
    drop(response);
    soon(runner.idle()).await;
    assert_eq!((runner.stats().completed, runner.stats().aborted), (1, 1));
}

#[tokio::test]
async fn an_inner_hold_runs_only_if_both_are_released() {
    for (inner_released, outer_released, runs) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let (runner, log) = (Runner::new(), Log::default());
        let (response, tasks) = open_response(&runner);
        let outer = tasks.hold();
        let inner = outer.hold();
        inner.add_task(log.task("inner"));
        let end = |held: Held, released| {
            if released {
                held.release()
            }
        };
        end(inner, inner_released);
        assert_eq!(outer.len(), usize::from(inner_released));
        end(outer, outer_released);
        drop(response);
        soon(runner.idle()).await;
        assert_eq!(log.lines().len(), usize::from(runs));
        assert_eq!(runner.stats().skipped, u64::from(!runs));
    }
}

#[tokio::test]
async fn an_inner_hold_released_after_the_outer_was_dropped_is_skipped() {
    let (runner, log) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    let outer = tasks.hold();
    let inner = outer.hold();
    inner.add_task(log.task("inner"));
    drop(outer);
    let late = inner.clone();
    inner.release();
    late.add_task(log.task("late"));
    drop(response);
    soon(runner.idle()).await;
    assert!(log.lines().is_empty());
    assert_eq!((runner.stats().skipped, runner.stats().pending), (2, 0));
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
}

#[test]
fn without_a_runner_an_inner_hold_of_a_dropped_one_is_empty() {
    let outer = BackgroundTasks::new().hold();
    let (inner, outer_tasks) = (outer.hold(), outer.clone());
    inner.add_task(async {});
    drop(outer);
    inner.release();
    assert!(outer_tasks.is_empty());
}

#[test]
fn without_a_runner_a_dropped_hold_contains_a_late_task_s_panic() {
    let held = BackgroundTasks::new().hold();
    let late = held.clone();
    drop(held);
    let panics = PanicsWhenDropped;
    late.add_task(async move { drop(panics) });
    assert!(late.is_empty());
}

#[tokio::test]
async fn a_dropped_hold_that_a_response_returns_runs_nothing() {
    let (runner, log) = (Runner::new(), Log::default());
    let held = BackgroundTasks::new().hold();
    let tasks = held.clone();
    drop(held);
    let response = runner.attach(full("hello"), tasks.clone());
    tasks.add_task(log.task("late"));
    drop(response);
    soon(runner.idle()).await;
    assert!(log.lines().is_empty());
    assert_eq!(runner.stats().added, 0);
}

#[tokio::test]
async fn a_panic_in_the_handler_skips_what_is_held() {
    let (runner, log) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let held = tasks.hold();
        held.add_task(log.task("mail"));
        panic!("on purpose: a handler");
    }));
    assert!(panicked.is_err());
    drop(response);
    soon(runner.idle()).await;
    assert_eq!((runner.stats().added, runner.stats().skipped), (1, 1));
    assert!(log.lines().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_before_the_commit_skips_them() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let mut service = runner
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            let log = handler_log.clone();
            async move {
                let held = BackgroundTasks::from_extensions(request.extensions())
                    .unwrap()
                    .hold();
                held.add_task(Task::new(log.task("mail")).run_if(|_| true));
                std::future::pending::<()>().await; // the commit
                held.release();
                Ok::<_, std::convert::Infallible>(full("hello"))
            }
        }));
    let mut handler = Box::pin(service.call(get("/")));
    assert!(handler.as_mut().now_or_never().is_none());
    assert_eq!(runner.stats().awaiting_response, 1);
    drop(handler);
    soon(runner.idle()).await;
    let stats = runner.stats();
    assert_eq!(
        (stats.skipped, stats.awaiting_response, stats.pending),
        (1, 0, 0)
    );
    assert!(log.lines().is_empty());
}

#[tokio::test]
async fn released_after_the_response_they_start_at_once() {
    let (runner, log) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    let held = tasks.hold();
    held.add_task(log.task("late"));
    drop(response);
    turns(5).await;
    assert!(log.lines().is_empty());
    held.release();
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["late"]);
}

#[tokio::test]
async fn shutdown_aborts_and_names_what_is_held() {
    let ((runner, ends), log) = (observed(), Log::default());
    let (_response, tasks) = open_response(&runner);
    let held = tasks.hold();
    held.add_task(noting(&log, "mail"));
    let report = runner.shutdown(Duration::ZERO).await;
    assert_eq!(report.unfinished()[0].name(), "mail");
    held.add_task(noting(&log, "refused"));
    held.release();
    soon(runner.idle()).await;
    assert_eq!(told(&ends), ["mail aborted", "refused rejected"]);
    assert!(runner.tasks().is_empty());
}

#[tokio::test]
async fn a_hold_of_a_stand_alone_queue_is_released_into_it() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    let dropped = tasks.hold();
    dropped.add_task(log.task("dropped"));
    drop(dropped);
    let held = tasks.hold();
    held.add_task(log.task("released"));
    assert!(tasks.is_empty());
    held.release();
    assert_eq!(tasks.run().await.len(), 1);
    assert_eq!(log.lines(), ["released"]);
}

#[tokio::test]
async fn an_empty_hold_leaves_nothing_behind() {
    let runner = Runner::new();
    let response = respond(&runner, get("/"), |tasks| {
        tasks.hold().release();
        drop(tasks.hold());
        full("hello")
    })
    .await;
    drop(response);
    soon(runner.idle()).await;
    assert_eq!((runner.stats().added, runner.tasks().len()), (0, 0));
}

#[tokio::test]
async fn a_hold_that_a_response_returns_runs_only_once_released() {
    for released in [false, true] {
        let (runner, log) = (Runner::new(), Log::default());
        let outer = BackgroundTasks::new();
        let held = outer.hold();
        held.add_task(log.task("mail"));
        let response = runner.attach(full("hello"), held.clone());
        let response = runner.attach(response, outer);
        drop(response);
        turns(5).await;
        assert!(log.lines().is_empty());
        if released {
            held.release();
        } else {
            drop(held);
        }
        soon(runner.idle()).await;
        assert_eq!(log.lines().len(), usize::from(released));
        assert_eq!(runner.stats().added, u64::from(released));
    }
}

#[tokio::test]
async fn a_dropped_hold_refuses_once_the_runner_has_shut_down() {
    let runner = Runner::new();
    let (_response, tasks) = open_response(&runner);
    let held = tasks.hold();
    let late = held.clone();
    drop(held);
    assert!(late.try_add_task(async {}).is_ok(), "it ends skipped");
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
    let refused = late.try_add_task(async {});
    assert!(matches!(refused, Err(AddTaskError::Closed(_))));
    late.add_task(async {});
    assert_eq!((runner.stats().skipped, runner.stats().rejected), (1, 1));
}

#[tokio::test]
async fn a_hold_returned_before_its_queue_keeps_nothing_back() {
    use axum::response::IntoResponse;

    let (runner, log) = (Runner::new(), Log::default());
    let tasks = BackgroundTasks::new();
    tasks.add_task(log.task("queued"));
    let held = tasks.hold();
    held.add_task(log.task("held"));
    let returned = (held.clone(), tasks, "hello").into_response();
    held.release();
    let mut returned = Some(returned);
    let service = service_fn(move |_: Request<()>| {
        let response = returned.take().unwrap();
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let response = runner.layer().layer(service).call(get("/")).await.unwrap();
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["queued", "held"]);
}

#[tokio::test]
async fn a_dropped_hold_returned_before_another_queue_skips_nothing_of_it() {
    use axum::response::IntoResponse;

    let (runner, log) = (Runner::new(), Log::default());
    let held = BackgroundTasks::new().hold();
    let other = BackgroundTasks::new();
    other.add_task(log.task("queued"));
    let returned = (held.clone(), other, "hello").into_response();
    drop(held);
    let mut returned = Some(returned);
    let service = service_fn(move |_: Request<()>| {
        let response = returned.take().unwrap();
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let response = runner.layer().layer(service).call(get("/")).await.unwrap();
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["queued"]);
}
