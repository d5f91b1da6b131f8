//! Shutdowns and timeouts where there is no timer, or one that goes: nothing panics but Tokio's timer itself.

use std::{
    future::pending,
    thread,
    time::{Duration, Instant},
};

use tower_background_tasks::{BackgroundTasks, Runner, Task, TaskEnd, TaskId};

use crate::support::{Log, block_on, no_panic_in, open_response, turns, watched};

const SECOND: Duration = Duration::from_secs(1);

/// A shutdown with a task that never ends: it waits for its grace, and no longer.
async fn shuts_down_after_its_grace(runner: &Runner) {
    let grace = Duration::from_millis(50);
    runner.add_task(pending::<()>());
    let (response, tasks) = open_response(runner);
    tasks.add_task(async {});
    let begun = Instant::now();
    let report = runner.shutdown(grace).await;
    let took = begun.elapsed();
    assert!(grace <= took && took < 20 * SECOND, "{took:?}");
    assert!(
        report
            .unfinished()
            .iter()
            .any(|task| task.id() == TaskId::from(2))
    );
    drop(response);
}

#[test]
fn shutdown_without_a_timer_keeps_its_grace() {
    no_panic_in("shutdown, no timer", |name| {
        for runtime in watched(name, false) {
            let runner = Runner::new();
            runtime.block_on(shuts_down_after_its_grace(&runner));
            assert_eq!((runner.stats().added, runner.stats().aborted), (2, 2));
        }
    });
}

#[test]
fn shutdown_on_no_runtime_keeps_its_grace_and_panics_nowhere() {
    no_panic_in("shutdown, no runtime", |_| {
        let runner = Runner::new();
        block_on(shuts_down_after_its_grace(&runner));
        assert_eq!((runner.stats().added, runner.stats().aborted), (2, 2));
    });
}

#[test]
fn shutdown_without_a_timer_returns_as_soon_as_all_ended() {
    no_panic_in("shutdown, no timer, clean", |name| {
        for runtime in watched(name, false) {
            for grace in [60 * SECOND, Duration::MAX] {
                let runner = Runner::new();
                let report = runtime.block_on(async {
                    runner.add_task(turns(10));
                    runner.add_blocking_task(|| thread::sleep(Duration::from_millis(20)));
                    runner.shutdown(grace).await
                });
                assert!(report.is_clean());
                assert_eq!(runner.stats().completed, 2);
            }
        }
    });
}

/// The runtime whose handle a thread has entered is gone, or goes while that thread waits.
fn with_an_entered_runtime_gone(name: &str, goes_later: bool, waits: impl FnOnce()) {
    let [_, runtime] = watched(name, true);
    let handle = runtime.handle().clone();
    let _entered = handle.enter();
    let goes = move || {
        thread::sleep(Duration::from_millis(if goes_later { 20 } else { 0 }));
        drop(runtime);
    };
    let named = thread::Builder::new().name(name.into());
    let going = named.spawn(goes).unwrap();
    if goes_later {
        waits();
        return going.join().unwrap();
    }
    going.join().unwrap();
    waits();
}

#[test]
fn shutdown_on_a_gone_runtime_keeps_its_grace() {
    no_panic_in("shutdown, runtime gone", |name| {
        with_an_entered_runtime_gone(name, false, || {
            let runner = Runner::new();
            block_on(shuts_down_after_its_grace(&runner));
        });
    });
}

#[test]
fn shutdown_keeps_its_grace_though_the_runtime_goes_meanwhile() {
    no_panic_in("shutdown, runtime goes", |name| {
        with_an_entered_runtime_gone(name, true, || {
            let runner = Runner::new();
            let (response, tasks) = open_response(&runner);
            tasks.add_task(async {});
            let begun = Instant::now();
            let report = block_on(runner.shutdown(Duration::from_millis(100)));
            assert!(begun.elapsed() >= Duration::from_millis(100));
            assert_eq!(report.unfinished().len(), 1);
            drop(response);
        });
    });
}

#[test]
fn running_by_hand_on_a_gone_runtime_ends_every_task() {
    no_panic_in("by hand, runtime gone", |name| {
        with_an_entered_runtime_gone(name, false, || {
            let tasks = BackgroundTasks::new();
            tasks.add_task(Task::new(turns(3)).timeout(SECOND));
            tasks.add_task(Task::blocking(|| ()).timeout(SECOND));
            tasks.add_blocking_task(|| ());
            let ends = block_on(tasks.run());
            assert!(
                matches!(
                    ends[..],
                    [TaskEnd::Failed(_), TaskEnd::Aborted, TaskEnd::Aborted]
                ),
                "{ends:?}"
            );
        });
    });
}

#[test]
fn a_timeout_without_a_timer_fails_its_task() {
    no_panic_in("a task's timeout, no timer", |name| {
        for runtime in watched(name, false) {
            let runner = Runner::builder().task_timeout(60 * SECOND).build();
            let (response, tasks) = open_response(&runner);
            tasks.add_task(Task::new(async {}).timeout(SECOND));
            tasks.add_task(Task::blocking(|| ()).timeout(SECOND));
            tasks.add_task(turns(10));
            tasks.add_blocking_task(|| ());
            runtime.block_on(async {
                drop(response);
                runner.idle().await;
            });
            assert_eq!((runner.stats().added, runner.stats().failed), (4, 4));
        }
    });
}

#[test]
fn run_by_hand_without_a_timer_fails_timed_tasks() {
    no_panic_in("by hand, no timer", |name| {
        for runtime in watched(name, false) {
            let tasks = BackgroundTasks::new();
            tasks.add_task(Task::new(async {}).timeout(SECOND));
            tasks.add_task(Task::blocking(|| ()).timeout(SECOND));
            let ends = runtime.block_on(tasks.run());
            assert!(
                matches!(ends[..], [TaskEnd::Failed(_), TaskEnd::Failed(_)]),
                "{ends:?}"
            );
        }
    });
}

#[test]
fn without_a_timer_a_blocking_task_with_timeout_does_not_run() {
    no_panic_in("a blocking task's timeout, no timer", |name| {
        for runtime in watched(name, false) {
            let (runner, log) = (Runner::new(), Log::default());
            runtime.block_on(async {
                let (response, tasks) = open_response(&runner);
                let must_not = log.clone();
                tasks.add_task(Task::blocking(move || must_not.write("ran")).timeout(SECOND));
                tasks.add_task(log.task("behind"));
                drop(response);
                runner.idle().await;
            });
            assert_eq!(log.lines(), ["behind"]);
            assert_eq!((runner.stats().failed, runner.stats().completed), (1, 1));
        }
    });
}

#[test]
fn idle_without_a_timer_names_what_waits_after_a_second() {
    no_panic_in("idle, no timer", |name| {
        for runtime in watched(name, false) {
            let runner = Runner::new();
            let (_response, tasks) = open_response(&runner);
            tasks.add_task(async {});
            let begun = Instant::now();
            let idle = runtime.block_on(runner.idle());
            assert_eq!(idle.waiting().len(), 1);
            assert!((SECOND..20 * SECOND).contains(&begun.elapsed()));
        }
    });
}
