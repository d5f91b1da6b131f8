//! Connections that go on when their response has ended: a shutdown waits for them, and names them.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};
use tower_background_tasks::{BackgroundTasks, Runner, ShutdownReport, TaskInfo};

use crate::support::{Log, full, get, open_response, respond, soon};

const SECOND: Duration = Duration::from_secs(1);

/// What a socket's handler does: it ends when it is told to, and adds a task then.
async fn socket(tasks: BackgroundTasks, log: Log, takes: Duration) {
    let _open = tasks.keep_open();
    tasks.shutting_down().await;
    assert!(tasks.is_shutting_down());
    sleep(takes).await;
    tasks.add_task(log.task("the socket has closed"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_a_socket_and_its_task() {
    let (runner, log) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    drop(response);
    assert!(!tasks.is_shutting_down());
    let socket = tokio::spawn(socket(tasks, log.clone(), 3 * SECOND));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let report = runner.shutdown(10 * SECOND).await;
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert!(report.is_clean(), "{report}");
    assert_eq!(log.lines(), ["the socket has closed"]);
    soon(socket).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_still_open_at_the_end_is_named() {
    let (runner, log) = (Runner::new(), Log::default());
    let mut socket_of = None;
    let response = respond(&runner, get("/chat"), |tasks| {
        tokio::spawn(socket(tasks, log.clone(), 60 * SECOND));
        full("hello")
    });
    socket_of.replace(response.await);
    drop(socket_of);
    tokio::task::yield_now().await;
    let report = runner.shutdown(2 * SECOND).await;
    let text = report.to_string();
    assert!(
        text.starts_with("1 connection kept open:\n  GET /chat: kept open for 2.0s, at "),
        "{text}"
    );
    assert!(!report.is_clean() && report.unfinished().is_empty());
    assert_eq!(report.connections().count(), 1);
    let age = |report: &ShutdownReport| report.connections().next().unwrap().age();
    let then = age(&report);
    sleep(60 * SECOND).await;
    assert_eq!(age(&report), then, "a report does not change");
    soon(runner.idle()).await;
    let report = runner.shutdown(Duration::ZERO).await;
    assert_eq!(report.rejected().len(), 1, "its task came too late");
    assert_eq!(report.connections().count(), 1, "as before");
    assert!(log.lines().is_empty());
}

#[tokio::test]
async fn a_task_that_comes_too_late_is_named() {
    let runner = Runner::new();
    let (response, tasks) = open_response(&runner);
    drop(response);
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
    assert!(tasks.try_add_task(async {}).is_err(), "it is given back");
    tasks.add_task(tower_background_tasks::Task::new(async {}).named("late"));
    let report = runner.shutdown(Duration::ZERO).await;
    let names: Vec<_> = report.rejected().iter().map(TaskInfo::name).collect();
    assert_eq!(names, ["late"]);
    assert!(!report.is_clean());
    let text = report.to_string();
    assert!(
        text.starts_with("1 background task added too late:\n  late: "),
        "{text}"
    );
    assert_eq!(runner.stats().rejected, 1);
}

/// A full queue is no end: its rejections are in the log and in the counts.
#[tokio::test]
async fn a_rejection_for_want_of_room_is_not_in_the_report() {
    let runner = Runner::builder().max_awaiting_response(1).build();
    let (response, tasks) = open_response(&runner);
    tasks.add_task(async {});
    tasks.add_task(async {});
    drop(response);
    let report = runner.shutdown(SECOND).await;
    assert_eq!(runner.stats().rejected, 1);
    assert!(report.is_clean() && report.rejected().is_empty());
}

#[tokio::test]
async fn idle_does_not_wait_for_a_connection() {
    let runner = Runner::new();
    let (response, tasks) = open_response(&runner);
    drop(response);
    let _open = tasks.keep_open();
    assert!(runner.idle().now_or_never().unwrap().is_complete());
    assert_eq!(runner.stats().added, 0);
}

#[tokio::test]
async fn a_stand_alone_queue_keeps_nothing_open() {
    let (runner, tasks) = (Runner::new(), BackgroundTasks::new());
    let _open = tasks.keep_open();
    drop(runner.attach(full("hello"), tasks.clone()));
    assert!(runner.shutdown(Duration::MAX).now_or_never().is_some());
    assert!(
        BackgroundTasks::new()
            .shutting_down()
            .now_or_never()
            .is_none()
    );
}

/// The guard goes before its last task has ended, or after.
#[tokio::test]
async fn many_connections_and_tasks_are_all_waited_for() {
    let (runner, log) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    drop(response);
    let sockets: Vec<_> = (0..100)
        .map(|_| tokio::spawn(socket(tasks.clone(), log.clone(), Duration::ZERO)))
        .collect();
    tokio::task::yield_now().await;
    let report = soon(runner.shutdown(Duration::MAX)).await;
    assert!(report.is_clean());
    assert_eq!(log.lines().len(), 100);
    for socket in sockets {
        soon(socket).await.unwrap();
    }
}
