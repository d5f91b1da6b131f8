//! The runtime: remembered, absent, or gone; and drops where nobody expects them.

use std::{
    error::Error,
    fmt,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use http::Response;
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tower_background_tasks::{BackgroundTasks, Order, ResponseBody, Runner, Task};

use crate::support::{
    Log, Outcomes, get, hold, is_quiet, open_response, respond, soon, until, wait_for,
};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

async fn response_with(
    runner: &Runner,
    tasks: impl Fn(&BackgroundTasks) + Clone,
) -> Response<ResponseBody<Full<&'static [u8]>>> {
    respond(runner, get("/"), |queue| {
        tasks(&queue);
        Response::new(Full::new(&b"hello"[..]))
    })
    .await
}

#[tokio::test]
async fn body_dropped_on_a_foreign_thread_still_runs_its_tasks() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = response_with(&runner, |tasks| {
        tasks.add_task(log.task("async"));
        let log = log.clone();
        tasks.add_blocking_task(move || log.write("blocking"));
    })
    .await;
    thread::spawn(move || drop(response)).join().unwrap();
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["async", "blocking"]);
}

/// Counts its drops, and panics in each.
struct CountsDropsAndPanics(Arc<AtomicUsize>);

impl Drop for CountsDropsAndPanics {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("on purpose: what a setting captured");
    }
}

#[tokio::test]
async fn last_handle_in_a_body_drops_the_settings_without_panic() {
    let drops = Arc::new(AtomicUsize::new(0));
    let captured = || CountsDropsAndPanics(Arc::clone(&drops));
    let (observer, condition) = (captured(), captured());
    let runner = Runner::builder()
        .on_task_end(move |_| {
            let _ = &observer;
        })
        .run_if(move |_| {
            let _ = &condition;
            true
        })
        .build();
    let response = response_with(&runner, |_| {}).await;
    drop(runner);
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(response);
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn body_dropped_while_unwinding_runs_its_tasks_and_says_so() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let response = response_with(&runner, |tasks| tasks.add_task(outcomes.task())).await;
    let unwinding = catch_unwind(AssertUnwindSafe(|| {
        let _response = response;
        panic!("on purpose: something else panics");
    }));
    assert!(unwinding.is_err());
    let outcome = outcomes.only(&runner).await;
    assert_eq!(outcome.end, tower_background_tasks::ResponseEnd::Panicked);
}

#[test]
fn without_any_runtime_tasks_end_aborted_and_nothing_panics() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = response_with(&runner, |tasks| {
        tasks.add_task(log.task("async"));
        let log = log.clone();
        tasks.add_blocking_task(move || log.write("blocking"));
    })
    .now_or_never()
    .unwrap();
    drop(response);
    runner.add_task(log.task("of no request"));
    assert!(runner.idle().now_or_never().is_some());
    assert!(log.lines().is_empty());
    let stats = runner.stats();
    assert_eq!((stats.added, stats.aborted), (3, 3));
    assert_eq!((stats.pending, stats.running), (0, 0));
}

#[test]
fn response_made_outside_a_runtime_and_dropped_inside_runs_tasks() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = response_with(&runner, |tasks| tasks.add_task(log.task("runs")))
        .now_or_never()
        .unwrap();
    runtime().block_on(async {
        drop(response);
        soon(runner.idle()).await;
    });
    assert_eq!(log.lines(), ["runs"]);
}

#[test]
fn tasks_go_with_their_runtime_and_each_is_counted() {
    let (runner, log) = (Runner::new(), Log::default());
    let runtime = runtime();
    let (started, has_started) = mpsc::channel();
    let kept = runtime.block_on(async {
        let running = response_with(&runner, |tasks| {
            let started = started.clone();
            tasks.add_task(async move {
                started.send(()).unwrap();
                pending::<()>().await;
            });
            tasks.add_task(log.task("must not run"));
            let log = log.clone();
            tasks.add_blocking_task(move || log.write("must not run either"));
        })
        .await;
        drop(running);
        response_with(&runner, |tasks| tasks.add_task(log.task("nor this"))).await
    });
    has_started.recv().unwrap();
    drop(runtime);
    assert_eq!(runner.stats().aborted, 3);
    drop(kept);
    runner.add_task(log.task("nor that"));
    runner.add_blocking_task(|| ());
    let stats = runner.stats();
    assert_eq!((stats.added, stats.aborted), (6, 6));
    assert_eq!((stats.pending, stats.running), (0, 0));
    assert!(log.lines().is_empty());
    assert!(runner.idle().now_or_never().is_some());
}

#[test]
fn tasks_that_never_began_are_dropped_with_their_runtime() {
    let (runner, held) = (Runner::new(), Arc::new(()));
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for _ in 0..300 {
            let held = Arc::clone(&held);
            runner.add_task(async move { drop(held) });
        }
        assert_eq!(runner.stats().pending, 300);
    });
    drop(runtime);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.aborted), (300, 300));
    assert_eq!((stats.pending, stats.running), (0, 0));
    assert_eq!(Arc::strong_count(&held), 1, "a task is still there");
}

#[test]
fn timeout_without_a_timer_fails_and_names_the_remedy() {
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let tasks = BackgroundTasks::new();
        let second = Duration::from_secs(1);
        tasks.add_task(Task::new(async {}).timeout(second));
        tasks.add_task(Task::blocking(|| ()).timeout(second));
        for end in tasks.run().await {
            assert!(end.to_string().contains("`enable_time`"), "{end}");
        }
    });
}

#[tokio::test]
async fn a_subscriber_of_the_log_is_not_needed() {
    let runner = Runner::new();
    let shown = Arc::new(AtomicBool::new(false));
    let error = Shown(Arc::clone(&shown));
    runner.add_task(async { Err::<(), _>(error) });
    soon(runner.idle()).await;
    assert_eq!(runner.stats().failed, 1);
    assert!(!shown.load(Ordering::SeqCst), "nobody reads this");
}

/// Notes whether somebody has asked for its text.
#[derive(Debug)]
struct Shown(Arc<AtomicBool>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.store(true, Ordering::SeqCst);
        f.write_str("an error")
    }
}

impl Error for Shown {}

#[test]
fn outside_a_runtime_only_async_tasks_fail_by_timeout() {
    let tasks = BackgroundTasks::new();
    let second = Duration::from_secs(1);
    tasks.add_task(Task::new(async {}).timeout(second));
    tasks.add_task(Task::blocking(|| ()).timeout(second));
    let ends = tasks.run().now_or_never().unwrap();
    assert!(
        ends[0].to_string().contains("needs a Tokio runtime"),
        "{}",
        ends[0]
    );
    assert_eq!(ends[1].to_string(), "completed");
}

#[test]
fn blocking_tasks_that_run_complete_though_their_batch_is_dropped() {
    const TASKS: usize = 40;
    let runner = Runner::builder().order(Order::Concurrent).build();
    let runtime = Builder::new_current_thread().build().unwrap();
    let (releases, begun) = runtime.block_on(async {
        let (response, tasks) = open_response(&runner);
        let (releases, held): (Vec<_>, Vec<_>) = (0..TASKS).map(|_| hold()).unzip();
        for holds in held {
            tasks.add_task(holds);
        }
        drop(response);
        until(|| tasks.len() < TASKS).await;
        // One poll of the batch has not taken them all.
        (releases, TASKS - tasks.len())
    });
    assert!(begun < TASKS);
    wait_for(|| runner.stats().running as usize == begun);
    runtime.shutdown_background();
    drop(releases);
    wait_for(|| is_quiet(&runner));
    let stats = runner.stats();
    assert_eq!(stats.completed as usize, begun);
    assert_eq!(stats.aborted as usize, TASKS - begun);
}
