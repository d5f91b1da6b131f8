//! What the builder sets for all tasks: what a failure does to the others, a timeout, a condition, an observer.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Response;
use http_body_util::Full;
use tower_background_tasks::{
    BackgroundTasks, OnFailure, Order, ResponseOutcome, Runner, Task, TaskKind,
};

use crate::support::{Log, PanicsWhenShown, full, soon};

#[tokio::test(start_paused = true)]
async fn on_failure_stop_skips_the_rest_of_its_request_only() {
    let fails: [fn() -> Task; 4] = [
        || Task::new(async { Err::<(), _>("on purpose") }),
        || Task::new(async { panic!("on purpose") }),
        || Task::blocking(|| panic!("on purpose")),
        || Task::new(pending::<()>()).timeout(Duration::from_secs(1)),
    ];
    for fail in fails {
        let runner = Runner::builder().on_failure(OnFailure::Stop).build();
        let log = Log::default();
        let tasks = BackgroundTasks::new();
        tasks.add_task(log.task("before"));
        tasks.add_task(fail());
        tasks.add_task(log.task("behind"));
        drop(runner.attach(full("hello"), tasks.clone()));
        let other = BackgroundTasks::new();
        other.add_task(log.task("other request"));
        runner.idle().await;
        drop(runner.attach(full("hello"), other));
        tasks.add_task(log.task("late"));
        runner.idle().await;
        assert_eq!(log.lines(), ["before", "other request"]);
        let stats = runner.stats();
        assert_eq!((stats.added, stats.completed, stats.skipped), (5, 2, 2));
    }
}

#[tokio::test]
async fn on_failure_stop_skips_concurrent_tasks_that_have_not_begun() {
    let runner = Runner::builder()
        .order(Order::Concurrent)
        .on_failure(OnFailure::Stop)
        .max_running(1)
        .build();
    let tasks = BackgroundTasks::new();
    tasks.add_task(async { Err::<(), _>("on purpose") });
    for _ in 0..3 {
        tasks.add_task(async { panic!("must not run") });
    }
    drop(runner.attach(full("hello"), tasks));
    soon(runner.idle()).await;
    assert_eq!((runner.stats().failed, runner.stats().skipped), (1, 3));
}

#[tokio::test]
async fn a_skip_or_a_success_stops_nothing() {
    let runner = Runner::builder().on_failure(OnFailure::Stop).build();
    let log = Log::default();
    let tasks = BackgroundTasks::new();
    tasks.add_task(Task::new(async {}).run_if(|_| false));
    tasks.add_task(async { Ok::<_, String>(1) });
    tasks.add_task(log.task("runs"));
    drop(runner.attach(full("hello"), tasks));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["runs"]);
}

#[tokio::test(start_paused = true)]
async fn runners_timeout_is_for_tasks_without_their_own() {
    let second = Duration::from_secs(1);
    let runner = Runner::builder().task_timeout(2 * second).build();
    let sleep = move |seconds: u32| async move { tokio::time::sleep(seconds * second).await };
    runner.add_task(sleep(1));
    runner.add_task(sleep(3));
    runner.add_task(Task::new(sleep(3)).timeout(4 * second));
    runner.add_task(Task::new(sleep(2)).timeout(second));
    runner.idle().await;
    let stats = runner.stats();
    assert_eq!((stats.completed, stats.timed_out), (2, 2));
}

#[tokio::test]
async fn runners_condition_is_for_tasks_without_their_own() {
    let runner = Runner::builder()
        .run_if(ResponseOutcome::is_success)
        .build();
    let log = Log::default();
    for status in [200, 500] {
        let tasks = BackgroundTasks::new();
        tasks.add_task(log.task(format!("{status} by the runner's")));
        tasks.add_task(Task::new(log.task(format!("{status} by its own"))).run_if(|_| true));
        let response = Response::builder()
            .status(status)
            .body(Full::new(&b""[..]))
            .unwrap();
        drop(runner.attach(response, tasks));
        soon(runner.idle()).await;
    }
    assert_eq!(
        log.lines(),
        ["200 by the runner's", "200 by its own", "500 by its own"]
    );
}

#[tokio::test(start_paused = true)]
async fn observer_is_told_everything_known_of_each_end_once() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let runner = Runner::builder()
        .max_awaiting_response(3)
        .on_task_end(move |report| {
            assert!(report.location().file().ends_with("failure.rs"));
            let (waited, ran) = (report.waited().as_secs(), report.ran().as_secs());
            let status = report.response().and_then(|response| response.status);
            let status = status.map(|status| status.as_u16());
            let kind = report.kind() == TaskKind::Blocking;
            sink.lock().unwrap().push((
                report.id(),
                format!(
                    "{} {} {waited} {ran} {status:?} {kind}",
                    report.name(),
                    report.end()
                ),
            ));
        })
        .build();
    let second = Duration::from_secs(1);
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    tasks.add_task(Task::new(async move { tokio::time::sleep(2 * second).await }).named("a"));
    tasks.add_task(Task::blocking(|| Err::<(), _>("no disk")).named("b"));
    tasks.add_task(Task::new(async {}).run_if(|_| false).named("c"));
    tasks.add_task(Task::new(async {}).named("d"));
    tokio::time::sleep(second).await;
    drop(response);
    runner.idle().await;
    runner.add_task(Task::new(pending::<()>()).named("e"));
    let report = runner.shutdown(second).await;
    assert_eq!(report.unfinished().len(), 1);
    let seen = seen.lock().unwrap();
    let (mut ids, lines): (Vec<_>, Vec<_>) = seen.iter().cloned().unzip();
    assert_eq!(
        lines,
        [
            "d rejected 0 0 None false",
            "a completed 1 2 Some(200) false",
            "b failed: no disk 3 0 Some(200) true",
            "c skipped: its condition did not hold 3 0 Some(200) false",
            "e aborted 0 1 None false",
        ]
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn panicking_observer_is_contained_and_the_end_still_counted() {
    for order in [Order::Sequential, Order::Concurrent] {
        let runner = Runner::builder()
            .order(order)
            .on_task_end(|_| panic!("on purpose: an observer"))
            .build();
        let tasks = BackgroundTasks::new();
        for _ in 0..3 {
            tasks.add_task(async {});
            tasks.add_blocking_task(|| ());
        }
        drop(runner.attach(full("hello"), tasks));
        soon(runner.idle()).await;
        assert_eq!(runner.stats().completed, 6);
    }
}

#[tokio::test]
async fn observer_is_told_of_an_error_that_cannot_be_shown() {
    let log = Log::default();
    let seen = log.clone();
    let runner = Runner::builder()
        .on_task_end(move |report| seen.write(report.name()))
        .build();
    runner.add_task(Task::new(async { Err::<(), _>(PanicsWhenShown) }).named("told"));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["told"]);
    assert_eq!(runner.stats().failed, 1);
}
