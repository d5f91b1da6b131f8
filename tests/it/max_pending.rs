//! How many tasks wait at most; past that they are given back, or end rejected.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use tokio::{runtime::Builder, sync::Notify};
use tower::ServiceExt;
use tower_background_tasks::{AddTaskError, BackgroundTasks, BoxError, Runner, Task};

use crate::support::{Log, MEASURES, full, open_response, read_all, soon, until};

#[tokio::test]
async fn refusal_of_an_unshareable_future_goes_wherever_errors_go() {
    fn add(runner: &Runner) -> Result<(), BoxError> {
        let (one, other) = (Cell::new(1), Cell::new(true));
        let task = Task::new(async move { one.set(2) });
        runner.try_add_task(task.run_if(move |_| other.take()))?;
        Ok(())
    }
    let runner = Runner::builder().max_pending(1).build();
    add(&runner).unwrap();
    let error = add(&runner).unwrap_err();
    assert!(error.to_string().contains("max_pending"), "{error}");
}

#[tokio::test]
async fn past_max_pending_tasks_are_given_back_or_rejected() {
    let runner = Runner::builder().max_pending(2).max_running(1).build();
    let (log, gate) = (Log::default(), Arc::new(Notify::new()));
    let opened = gate.clone();
    runner.add_task(async move { opened.notified().await });
    until(|| runner.stats().running > 0).await;
    assert!(runner.try_add_task(log.task("1")).is_ok());
    runner.add_task(log.task("2"));
    let refused = runner.try_add_task(log.task("given back")).unwrap_err();
    assert!(refused.to_string().contains("`max_pending`"));
    let AddTaskError::Full(given_back) = refused else {
        panic!("{refused}")
    };
    runner.add_task(log.task("rejected"));
    // A task whose response is open will need a place, too.
    let (response, tasks) = open_response(&runner);
    tasks.add_task(log.task("rejected too"));
    let stats = runner.stats();
    assert_eq!((stats.added, stats.pending, stats.rejected), (5, 2, 2));
    gate.notify_one();
    soon(runner.idle()).await;
    runner.try_add_task(given_back).unwrap();
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["1", "2", "given back"]);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.completed, stats.rejected), (6, 4, 2));
}

#[tokio::test]
async fn clients_that_do_not_read_keep_nobody_out() {
    let runner = Runner::builder().max_pending(10).build();
    let app = Router::new()
        .route(
            "/",
            get(async |tasks: BackgroundTasks| {
                tasks.try_add_task(async {})?;
                Ok::<_, AddTaskError>("accepted")
            }),
        )
        .layer(runner.layer());
    let request = || Request::get("/").body(Body::empty()).unwrap();
    let mut unread = Vec::new();
    for _ in 0..100 {
        unread.push(app.clone().oneshot(request()).await.unwrap());
    }
    let stats = runner.stats();
    assert_eq!((stats.awaiting_response, stats.pending), (100, 0));
    let refused = |response: &axum::response::Response| response.status() != StatusCode::OK;
    assert_eq!(
        unread.iter().filter(|response| refused(response)).count(),
        0
    );
    drop(unread);
    soon(runner.idle()).await;
    assert_eq!(
        runner.stats().completed,
        100,
        "more than may wait: they were taken"
    );
    let response = app.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn past_max_awaiting_response_tasks_are_given_back_or_rejected() {
    let runner = Runner::builder().max_awaiting_response(2).build();
    let log = Log::default();
    let (response, tasks) = open_response(&runner);
    let held = tasks.hold();
    assert!(held.try_add_task(log.task("held")).is_ok());
    tasks.add_task(log.task("1"));
    let refused = tasks.try_add_task(log.task("given back")).unwrap_err();
    assert!(refused.to_string().contains("`max_awaiting_response`"));
    assert!(matches!(refused, AddTaskError::FullOfAwaiting(_)));
    tasks.add_task(log.task("rejected"));
    assert!(runner.try_add_task(log.task("of no request")).is_ok());
    drop(held);
    until(|| runner.stats().skipped == 1).await;
    assert!(
        tasks.try_add_task(log.task("2")).is_ok(),
        "it has the place"
    );
    drop(response);
    soon(runner.idle()).await;
    assert!(tasks.try_add_task(log.task("late")).is_ok());
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["of no request", "1", "2", "late"]);
    let stats = runner.stats();
    assert_eq!((stats.awaiting_response, stats.pending), (0, 0));
}

#[tokio::test]
async fn a_response_that_takes_a_queue_rejects_tasks_past_the_limit() {
    let runner = Runner::builder().max_awaiting_response(2).build();
    let log = Log::default();
    let tasks = BackgroundTasks::new();
    for number in 0..5 {
        tasks.try_add_task(log.task(number.to_string())).unwrap();
    }
    drop(runner.attach(full("hello"), tasks));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["0", "1"]);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.completed, stats.rejected), (5, 2, 3));
}

/// Each way out of an open queue gives the places back.
#[tokio::test]
async fn every_place_comes_back() {
    let builder = Runner::builder().max_pending(8).max_awaiting_response(8);
    let runner = builder.build();
    for round in 0..100 {
        let (response, tasks) = open_response(&runner);
        let (held, dropped) = (tasks.hold(), tasks.hold());
        let ids = [(); 3].map(|()| tasks.try_add_task(async {}).unwrap());
        held.try_add_task(async {}).unwrap();
        dropped.try_add_task(async {}).unwrap();
        assert!(runner.cancel(ids[round % 3]));
        if round % 2 == 0 {
            held.release();
            drop((response, dropped));
        } else {
            drop((response, dropped));
            held.release();
        }
        soon(runner.idle()).await;
        let stats = runner.stats();
        assert_eq!(
            (stats.awaiting_response, stats.pending),
            (0, 0),
            "{stats:?}"
        );
    }
    assert_eq!(runner.stats().completed, 300);
    let (_response, tasks) = open_response(&runner);
    for _ in 0..8 {
        tasks.try_add_task(async {}).unwrap();
    }
    let report = runner.shutdown(Duration::ZERO).await;
    let stats = runner.stats();
    assert_eq!((report.unfinished().len(), stats.awaiting_response), (8, 0));
}

#[tokio::test]
async fn a_running_task_gives_its_pending_place_back() {
    let runner = Runner::builder().max_pending(1).build();
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    runner.add_task(async move { opened.notified().await });
    until(|| runner.stats().running > 0).await;
    assert!(runner.try_add_task(async {}).is_ok());
    gate.notify_one();
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 2);
}

#[tokio::test]
async fn try_add_answers_503_when_the_runner_is_full() {
    let runner = Runner::builder().max_awaiting_response(1).build();
    let app = Router::new()
        .route(
            "/",
            get(async |tasks: BackgroundTasks| {
                tasks.try_add_task(async {})?;
                tasks.try_add_task(async {})?;
                Ok::<_, AddTaskError>("accepted")
            }),
        )
        .layer(runner.layer());
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    read_all(response).await;
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 1);
}

#[tokio::test]
async fn a_cancelled_task_gives_its_place_back() {
    let runner = Runner::builder().max_awaiting_response(1).build();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    for _ in 0..3 {
        let id = tasks
            .try_add_task(async { panic!("must not run") })
            .unwrap();
        assert!(tasks.try_add_task(async {}).is_err());
        assert!(runner.cancel(id));
    }
    drop(response);
    assert!(tasks.try_add_task(async {}).is_ok());
    soon(runner.idle()).await;
    assert_eq!((runner.stats().completed, runner.stats().aborted), (1, 3));
}

#[test]
fn pending_never_reads_above_max_pending() {
    const LIMIT: u64 = 4;
    let _alone = MEASURES.blocking_lock();
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let runner = Runner::builder().max_pending(LIMIT as usize).build();
    let adders = [(); 2].map(|()| {
        let (runner, stop) = (runner.clone(), Arc::clone(&stop));
        let handle = runtime.handle().clone();
        thread::spawn(move || {
            let _entered = handle.enter();
            while !stop.load(Ordering::Relaxed) {
                let _ = runner.try_add_task(async {});
            }
        })
    });
    let (begun, mut most) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_millis(300) && most <= LIMIT {
        most = most.max(runner.stats().pending);
    }
    stop.store(true, Ordering::Relaxed);
    for adder in adders {
        adder.join().unwrap();
    }
    runtime.block_on(async { soon(runner.idle()).await });
    assert!(runner.stats().completed > 0);
    assert!(most <= LIMIT, "{most} of {LIMIT}");
}
