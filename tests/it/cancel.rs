//! Ending one task, and finding the queue without passing it on.

use std::{
    future::pending,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use futures_util::FutureExt;
use http::Request;
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};
use tower_background_tasks::{BackgroundTasks, OnFailure, Order, Runner, Task, TaskId, TaskState};

use crate::support::{Log, block_on, full, read_all, soon, until};

/// The numbers of a queue's tasks, in order.
fn ids(runner: &Runner) -> Vec<TaskId> {
    runner
        .tasks()
        .iter()
        .map(tower_background_tasks::TaskInfo::id)
        .collect()
}

#[tokio::test]
async fn waiting_task_is_cancelled_and_its_siblings_run_in_order() {
    for order in [Order::Sequential, Order::Concurrent] {
        let runner = Runner::builder().order(order).build();
        let log = Log::default();
        let tasks = BackgroundTasks::new();
        let response = runner.attach(full("hello"), tasks.clone());
        let mut added = Vec::new();
        for number in 0..5 {
            added.push(tasks.try_add_task(log.task(number.to_string())).unwrap());
        }
        assert!(runner.cancel(added[2]));
        assert!(!runner.cancel(added[2]), "it has ended");
        assert_eq!(tasks.len(), 4);
        drop(response);
        soon(runner.idle()).await;
        assert_eq!(log.lines(), ["0", "1", "3", "4"]);
        let stats = runner.stats();
        assert_eq!((stats.added, stats.completed, stats.aborted), (5, 4, 1));
        assert!(!runner.cancel(added[0]), "it has ended");
    }
}

#[tokio::test]
async fn idle_waits_for_the_report_of_an_aborted_task() {
    for by_shutdown in [false, true] {
        waits_until_the_end_is_reported(by_shutdown).await;
    }
}

async fn waits_until_the_end_is_reported(by_shutdown: bool) {
    let (reporting, is_reporting) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let runner = Runner::builder()
        .on_task_end(move |_| {
            reporting.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        })
        .build();
    let held = Arc::new(());
    let captured = Arc::clone(&held);
    let turns = async move {
        let _captured = captured;
        loop {
            yield_now().await;
        }
    };
    let id = runner.try_add_task(turns).unwrap();
    until(|| runner.stats().running > 0).await;
    let canceller = runner.clone();
    let cancelled = thread::spawn(move || match by_shutdown {
        true => !block_on(canceller.shutdown(Duration::ZERO)).is_clean(),
        false => canceller.cancel(id),
    });
    is_reporting.recv().unwrap();
    until(|| Arc::strong_count(&held) == 1).await;
    // Its batch has ended.
    yield_now().await;
    assert!(runner.idle().now_or_never().is_none());
    release.send(()).unwrap();
    soon(runner.idle()).await;
    let stats = runner.stats();
    assert_eq!((stats.aborted, stats.running, stats.pending), (1, 0, 0));
    assert!(cancelled.join().unwrap());
}

#[tokio::test]
async fn running_async_task_is_dropped_and_the_next_one_starts() {
    let (runner, log) = (Runner::new(), Log::default());
    let held = std::sync::Arc::new(());
    let captured = held.clone();
    let tasks = BackgroundTasks::new();
    tasks.add_task(async move {
        pending::<()>().await;
        drop(captured);
    });
    tasks.add_task(log.task("next"));
    drop(runner.attach(full("hello"), tasks));
    until(|| runner.stats().running > 0).await;
    let running = &runner.tasks()[0];
    assert_eq!(running.state(), TaskState::Running);
    assert!(runner.cancel(running.id()));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["next"]);
    assert_eq!(std::sync::Arc::strong_count(&held), 1);
    assert_eq!((runner.stats().aborted, runner.stats().completed), (1, 1));
}

#[tokio::test]
async fn one_that_waits_for_a_place_is_cancelled() {
    let runner = Runner::builder().max_running(1).build();
    runner.add_task(pending::<()>());
    let waiting = runner
        .try_add_task(Task::blocking(|| panic!("must not run")))
        .unwrap();
    assert!(runner.cancel(waiting));
    for id in ids(&runner) {
        assert!(runner.cancel(id));
    }
    soon(runner.idle()).await;
    assert_eq!((runner.stats().aborted, runner.stats().added), (2, 2));
}

#[tokio::test]
async fn number_from_the_log_cancels_its_task_and_no_other() {
    let runner = Runner::new();
    for _ in 0..3 {
        runner.add_task(pending::<()>());
    }
    let id = runner.tasks()[1].id();
    let read: TaskId = id.to_string().parse().unwrap();
    assert_eq!((read, TaskId::from(id.as_u64())), (id, id));
    assert!(runner.cancel(read));
    let left = ids(&runner);
    assert!(left.len() == 2 && !left.contains(&id));
    for number in [0, u64::MAX] {
        assert!(!runner.cancel(TaskId::from(number)), "there is none");
    }
    for text in ["", "-1", "seven", "18446744073709551616"] {
        assert!(text.parse::<TaskId>().is_err(), "{text}");
    }
}

async fn ten_functions_deep(log: &Log, line: &str) -> bool {
    yield_now().await;
    let Some(tasks) = BackgroundTasks::current() else {
        return false;
    };
    tasks.add_task(log.task(line));
    true
}

#[tokio::test]
async fn current_queue_is_the_requests_own_and_none_elsewhere() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/",
            get(async move |own: BackgroundTasks| {
                assert!(ten_functions_deep(&handler_log, "deep").await);
                let spawned = tokio::spawn(async { BackgroundTasks::current().is_some() });
                assert!(!spawned.await.unwrap());
                own.add_task(async { assert!(BackgroundTasks::current().is_none()) });
                own.add_blocking_task(|| assert!(BackgroundTasks::current().is_none()));
                "hello"
            }),
        )
        .layer(runner.layer());
    assert!(BackgroundTasks::current().is_none());
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert!(BackgroundTasks::current().is_none());
    read_all(response).await;
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["deep"]);
    assert_eq!(runner.stats().completed, 3);
}

#[tokio::test]
async fn requests_on_one_thread_each_find_their_own_queue() {
    let (one, other, log) = (Runner::new(), Runner::new(), Log::default());
    let service = |runner: &Runner, line: &'static str| {
        let log = log.clone();
        runner.layer().layer(service_fn(move |_: Request<()>| {
            let log = log.clone();
            async move {
                for _ in 0..3 {
                    assert!(ten_functions_deep(&log, line).await);
                }
                Ok::<_, std::convert::Infallible>(full("hello"))
            }
        }))
    };
    let (a, b) = tokio::join!(
        service(&one, "one").oneshot(Request::new(())),
        service(&other, "other").oneshot(Request::new(())),
    );
    drop((a, b));
    soon(one.idle()).await;
    soon(other.idle()).await;
    assert_eq!((one.stats().completed, other.stats().completed), (3, 3));
}

#[test]
fn a_panic_in_a_handler_leaves_no_current_queue_behind() {
    let runner = Runner::new();
    let service = runner.layer().layer(service_fn(|_: Request<()>| async {
        assert!(BackgroundTasks::current().is_some());
        panic!("on purpose: a handler")
            as Result<http::Response<http_body_util::Empty<&[u8]>>, std::convert::Infallible>
    }));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        futures_util::FutureExt::now_or_never(service.oneshot(Request::new(())))
    }));
    assert!(panicked.is_err());
    assert!(BackgroundTasks::current().is_none());
}

#[tokio::test]
async fn a_cancelled_or_aborted_task_does_nothing_more() {
    for by_shutdown in [false, true] {
        let (runner, log) = (Runner::new(), Log::default());
        let (go_on, waits) = tokio::sync::oneshot::channel::<()>();
        let task_log = log.clone();
        let id = runner
            .try_add_task(async move {
                let _ = waits.await;
                task_log.write("must not get here");
            })
            .unwrap();
        until(|| runner.stats().running > 0).await;
        yield_now().await;
        if by_shutdown {
            let report = runner.shutdown(std::time::Duration::ZERO).await;
            assert_eq!(report.unfinished().len(), 1);
        } else {
            assert!(runner.cancel(id));
        }
        let _ = go_on.send(());
        soon(runner.idle()).await;
        assert!(log.lines().is_empty());
    }
}

#[test]
fn blocking_task_with_timeout_is_cancelled_while_awaiting_a_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (release, held) = mpsc::channel::<()>();
        let holds = tokio::task::spawn_blocking(move || held.recv());
        let runner = Runner::builder()
            .task_timeout(Duration::from_secs(60))
            .build();
        let id = runner
            .try_add_task(Task::blocking(|| panic!("on purpose: it must not run")))
            .unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(runner.tasks()[0].state(), TaskState::Waiting);
        assert!(runner.cancel(id));
        soon(runner.idle()).await;
        drop(release);
        let _ = holds.await;
        let stats = runner.stats();
        assert_eq!((stats.aborted, stats.panicked), (1, 0));
    });
}

#[tokio::test]
async fn a_task_that_fails_when_it_is_cancelled_stops_nobody() {
    let runner = Runner::builder().on_failure(OnFailure::Stop).build();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    let (canceller, own) = (runner.clone(), Arc::new(Mutex::new(None)));
    let id = Arc::clone(&own);
    let task = async move {
        let id = id.lock().unwrap().take().unwrap();
        assert!(canceller.cancel(id));
        Err::<(), _>("on purpose")
    };
    *own.lock().unwrap() = Some(tasks.try_add_task(task).unwrap());
    tasks.add_task(async {});
    drop(response);
    soon(runner.idle()).await;
    let stats = runner.stats();
    assert_eq!((stats.aborted, stats.completed, stats.skipped), (1, 1, 0));
}
