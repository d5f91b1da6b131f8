//! A runner works from whatever runtime its request is on, one after another and side by side; and what a runtime sees of it.

use std::{sync::LazyLock, thread, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};
use tower_background_tasks::Runner;

use crate::support::{Log, full, get, open_response, respond, soon, until};

/// In turn one of many threads and one of a single thread.
fn runtime(number: usize) -> Runtime {
    let mut builder = match number % 2 {
        0 => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// How many [`all_kinds_of_tasks`] are.
const KINDS: u64 = 8;

/// A request with an async task, a blocking one, one that adds one, and late ones; and tasks of
/// no request.
async fn all_kinds_of_tasks(runner: &Runner) {
    let (response, tasks) = open_response(runner);
    tasks.add_task(async {});
    tasks.add_blocking_task(|| ());
    let again = tasks.clone();
    tasks.add_task(async move { again.add_blocking_task(|| ()) });
    drop(response);
    soon(runner.idle()).await;
    tasks.add_task(async {}); // late
    tasks.add_blocking_task(|| ());
    runner.add_task(async {});
    runner.add_blocking_task(|| ());
    soon(runner.idle()).await;
}

#[test]
fn five_runtimes_in_turn_each_run_all_tasks() {
    static RUNNER: LazyLock<Runner> = LazyLock::new(Runner::new);
    for number in 1..=5 {
        runtime(number).block_on(all_kinds_of_tasks(&RUNNER));
        let stats = RUNNER.stats();
        let added = number as u64 * KINDS;
        assert_eq!((stats.added, stats.completed), (added, added), "{number}");
        assert_eq!((stats.pending, stats.running), (0, 0));
    }
}

#[test]
fn two_runtimes_side_by_side_each_run_all_tasks() {
    static RUNNER: LazyLock<Runner> = LazyLock::new(Runner::new);
    runtime(0).block_on(all_kinds_of_tasks(&RUNNER)); // there was one before
    let both = [0, 1].map(|number| {
        thread::spawn(move || {
            let runtime = runtime(number);
            for _ in 0..20 {
                runtime.block_on(all_kinds_of_tasks(&RUNNER));
            }
        })
    });
    for thread in both {
        thread.join().unwrap();
    }
    let (stats, added) = (RUNNER.stats(), 41 * KINDS);
    assert_eq!((stats.added, stats.completed), (added, added));
}

/// A request with an async and a blocking task begins on one runtime, and ends on another.
fn ends_on_another_runtime(runner: &Runner, first_is_gone: bool) -> Log {
    let log = Log::default();
    runtime(0).block_on(all_kinds_of_tasks(runner)); // the runner's first
    let first = runtime(0);
    let response = first.block_on(respond(runner, get("/"), |tasks| {
        tasks.add_task(log.task("async"));
        let log = log.clone();
        tasks.add_blocking_task(move || log.write("blocking"));
        full("hello")
    }));
    let first = (!first_is_gone).then_some(first);
    runtime(1).block_on(async {
        drop(response);
        soon(runner.idle()).await;
    });
    drop(first);
    assert_eq!(runner.stats().aborted, 0);
    log
}

#[test]
fn a_body_that_ends_on_another_runtime_runs_its_tasks() {
    let log = ends_on_another_runtime(&Runner::new(), false);
    assert_eq!(log.lines(), ["async", "blocking"]);
}

#[test]
fn a_body_outlives_its_runtime_and_still_runs_its_tasks() {
    let log = ends_on_another_runtime(&Runner::new(), true);
    assert_eq!(log.lines(), ["async", "blocking"]);
}

#[test]
fn a_body_dropped_in_a_gone_runtimes_context_runs_its_tasks() {
    let (runner, own, gone) = (Runner::new(), runtime(0), runtime(1));
    let (response, tasks) = own.block_on(async { open_response(&runner) });
    tasks.add_task(async {});
    tasks.add_blocking_task(|| ());
    let handle = gone.handle().clone();
    let _entered = handle.enter();
    thread::scope(|scope| drop(scope.spawn(move || drop(gone))));
    drop(response);
    own.block_on(async { soon(runner.idle()).await });
    assert_eq!(runner.stats().completed, 2);
}

#[test]
fn a_body_dropped_in_a_passing_runtime_runs_its_tasks() {
    let (runner, own) = (Runner::new(), runtime(0));
    own.block_on(async {
        let (response, tasks) = open_response(&runner);
        for _ in 0..10 {
            tasks.add_task(tokio::time::sleep(Duration::from_millis(1)));
        }
        let passes = tokio::task::spawn_blocking(move || {
            runtime(1).block_on(async move { drop(response) });
        });
        passes.await.unwrap();
        soon(runner.idle()).await;
    });
    assert_eq!((runner.stats().completed, runner.stats().aborted), (10, 0));
}

#[test]
fn a_late_task_runs_though_its_requests_runtime_is_gone() {
    let (runner, log) = (Runner::new(), Log::default());
    let kept = runtime(0).block_on(async {
        let (response, tasks) = open_response(&runner);
        drop(response);
        tasks
    });
    runtime(1).block_on(async {
        kept.add_task(log.task("async"));
        let task_log = log.clone();
        kept.add_blocking_task(move || task_log.write("blocking"));
        soon(runner.idle()).await;
    });
    assert_eq!(log.lines(), ["async", "blocking"]);
}

#[tokio::test]
async fn each_requests_tasks_are_one_task_of_the_runtime() {
    let (runner, log) = (Runner::new(), Log::default());
    for number in 0..3 {
        let (response, tasks) = open_response(&runner);
        tasks.add_task(log.task(format!("begins {number}")));
        tasks.add_task(std::future::pending::<()>());
        drop(response);
    }
    until(|| log.lines().len() == 3 && runner.stats().running == 3).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 3);
    let report = runner.shutdown(Duration::ZERO).await;
    assert_eq!(report.unfinished().len(), 3);
}

#[tokio::test]
async fn a_shut_down_runner_leaves_no_task_of_the_runtime() {
    let runner = Runner::new();
    all_kinds_of_tasks(&runner).await;
    runner.add_task(std::future::pending::<()>());
    assert!(!runner.shutdown(Duration::ZERO).await.is_clean());
    until(|| Handle::current().metrics().num_alive_tasks() == 0).await;
}

/// A batch that has used up its time or its budget with its last task.
#[test]
fn idle_needs_no_runtime_whose_last_task_has_ended() {
    for blocking in [true, false] {
        let (runner, first) = (Runner::new(), runtime(1));
        let last_ran = first.block_on(async {
            let (response, tasks) = open_response(&runner);
            let (sender, ran) = tokio::sync::oneshot::channel();
            if blocking {
                tasks.add_blocking_task(move || {
                    thread::sleep(Duration::from_millis(30));
                    let _ = sender.send(());
                });
            } else {
                (0..31).for_each(|_| tasks.add_task(async {}));
                tasks.add_task(async move { sender.send(()).map_err(|()| "nobody waits") });
            }
            drop(response);
            soon(ran).await
        });
        assert!(last_ran.is_ok());
        // From here on, nobody drives the first runtime.
        runtime(0).block_on(soon(runner.idle()));
        assert_eq!(runner.stats().completed, runner.stats().added);
    }
}
