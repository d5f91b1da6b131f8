//! How many tasks run at once, and that no limit can deadlock.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use tokio::sync::Notify;
use tower_background_tasks::{
    BackgroundTasks, Order, Runner, RunnerBuilder, Task, TaskInfo, TaskState,
};

use crate::support::{LIMIT, Log, full, hold, soon, turns, until};

/// Counts how many are inside at once.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    fn enter(&self) {
        let inside = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(inside, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    async fn visit(self) {
        self.enter();
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.leave();
    }

    fn visit_blocking(&self) {
        self.enter();
        std::thread::sleep(std::time::Duration::from_millis(1));
        self.leave();
    }
}

/// Adds tasks as `how` says, as a request of their own or of none.
fn add(runner: &Runner, requests: usize, how: impl Fn(&BackgroundTasks)) {
    for _ in 0..requests {
        let tasks = BackgroundTasks::new();
        how(&tasks);
        drop(runner.attach(full("hello"), tasks));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_running_bounds_what_runs_at_once_and_all_run() {
    for order in [Order::Sequential, Order::Concurrent] {
        let runner = Runner::builder().max_running(3).order(order).build();
        let gauge = Gauge::default();
        add(&runner, 20, |tasks| {
            for number in 0..10 {
                let gauge = gauge.clone();
                match number % 3 {
                    0 => tasks.add_blocking_task(move || gauge.visit_blocking()),
                    _ => tasks.add_task(gauge.visit()),
                }
            }
        });
        for _ in 0..50 {
            runner.add_task(gauge.clone().visit());
        }
        soon(runner.idle()).await;
        assert_eq!(gauge.most(), 3);
        assert_eq!(runner.stats().completed, 250);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_running_bounds_what_counts_as_running() {
    let runner = Runner::builder().max_running(1).build();
    let most = Arc::new(AtomicUsize::new(0));
    for number in 0..10_000 {
        let (counted, most) = (runner.clone(), Arc::clone(&most));
        let look = move || {
            let running = counted.stats().running as usize;
            most.fetch_max(running, Ordering::SeqCst);
        };
        runner.add_task(match number % 10 {
            0 => Task::blocking(look),
            1 => Task::blocking(look).timeout(LIMIT),
            _ => Task::new(async move { look() }),
        });
    }
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 10_000);
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn async_tasks_run_while_max_blocking_is_used_up() {
    let runner = Runner::builder().max_blocking(1).build();
    let (release, holds) = hold();
    runner.add_task(holds);
    until(|| runner.stats().running == 1).await;
    runner.add_task(async {});
    until(|| runner.stats().completed == 1).await;
    drop(release);
    soon(runner.idle()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_blocking_bounds_blocking_tasks_and_async_ones_pass_them() {
    let runner = Runner::builder().max_blocking(2).build();
    let gauge = Gauge::default();
    add(&runner, 20, |tasks| {
        for _ in 0..5 {
            let gauge = gauge.clone();
            tasks.add_blocking_task(move || gauge.visit_blocking());
        }
    });
    let log = Log::default();
    runner.add_task(log.task("passes"));
    until(|| !log.lines().is_empty()).await;
    assert!(runner.stats().pending > 0);
    soon(runner.idle()).await;
    assert_eq!(gauge.most(), 2);
    assert_eq!(runner.stats().completed, 101);
}

#[tokio::test]
async fn waiting_tasks_are_served_in_the_order_of_coming() {
    let runner = Runner::builder().max_running(1).build();
    let (log, gate) = (Log::default(), Arc::new(Notify::new()));
    let opened = gate.clone();
    runner.add_task(async move { opened.notified().await });
    for number in 0..100 {
        let log = log.clone();
        match number % 2 {
            0 => runner.add_task(log.task(number.to_string())),
            _ => runner.add_blocking_task(move || log.write(number.to_string())),
        }
    }
    assert_eq!(runner.stats().pending, 101);
    gate.notify_one();
    soon(runner.idle()).await;
    let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(log.lines(), expected);
}

#[tokio::test]
async fn next_task_goes_behind_other_requests_waiting_tasks() {
    let runner = Runner::builder().max_running(1).build();
    let log = Log::default();
    for request in ["a", "b"] {
        let log = log.clone();
        add(&runner, 1, move |tasks| {
            tasks.add_task(log.task(format!("{request}1")));
            tasks.add_task(log.task(format!("{request}2")));
        });
    }
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["a1", "b1", "a2", "b2"]);
}

#[tokio::test]
async fn tasks_adding_tasks_to_a_full_runner_do_not_deadlock() {
    let runner = Runner::builder().max_running(1).max_blocking(1).build();
    add(&runner, 10, |tasks| {
        let again = tasks.clone();
        tasks.add_blocking_task(move || {
            let deeper = again.clone();
            again.add_task(async move { deeper.add_blocking_task(|| ()) });
        });
    });
    let inner = runner.clone();
    runner.add_task(async move {
        for _ in 0..10 {
            inner.add_task(async {});
            inner.add_blocking_task(|| ());
        }
    });
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 30 + 21);
}

#[tokio::test]
async fn timed_out_blocking_task_keeps_its_place_until_it_returns() {
    let runner = Runner::builder()
        .max_blocking(1)
        .task_timeout(std::time::Duration::from_millis(5))
        .build();
    let (release, gate) = mpsc::channel::<()>();
    let (log, returned) = (Log::default(), Log::default());
    let task_log = returned.clone();
    runner.add_blocking_task(move || {
        let _ = gate.recv();
        task_log.write("returned");
    });
    until(|| runner.stats().timed_out > 0).await;
    let (next_log, seen) = (log.clone(), returned.clone());
    runner.add_task(Task::blocking(move || {
        next_log.write(format!("{:?}", seen.lines()))
    }));
    turns(100).await;
    assert!(log.lines().is_empty(), "it has no place yet");
    let states = || {
        runner
            .tasks()
            .iter()
            .map(TaskInfo::state)
            .collect::<Vec<_>>()
    };
    assert_eq!(states(), [TaskState::Overdue, TaskState::Waiting]);
    assert!(
        runner.tasks()[0]
            .to_string()
            .contains("timed out, its thread running for")
    );
    drop(release);
    soon(runner.idle()).await;
    assert!(runner.tasks().is_empty());
    assert_eq!(log.lines(), [r#"["returned"]"#]);
}

#[test]
fn thirty_thousand_waiting_tasks_end_aborted_with_their_runtime() {
    let runner = Runner::builder().max_running(1).build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        runner.add_task(std::future::pending::<()>());
        for _ in 0..30_000 {
            runner.add_task(async {});
        }
        while runner.stats().running == 0 {
            tokio::task::yield_now().await;
        }
    });
    drop(runtime);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.aborted), (30_001, 30_001));
}

#[test]
fn a_zero_limit_panics_with_a_text_that_says_which() {
    let check = |name: &str, set: fn(RunnerBuilder) -> RunnerBuilder| {
        let panic = std::panic::catch_unwind(|| set(Runner::builder())).unwrap_err();
        let text = panic.downcast_ref::<String>().cloned();
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap();
        assert!(text.contains(name), "{text}");
    };
    check("`max_running`", |builder| builder.max_running(0));
    check("`max_blocking`", |builder| builder.max_blocking(0));
    check("`max_pending`", |builder| builder.max_pending(0));
    check("`task_timeout`", |builder| {
        builder.task_timeout(std::time::Duration::ZERO)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_tasks_run_side_by_side_and_late_ones_too() {
    let runner = Runner::builder().order(Order::Concurrent).build();
    let (sender, receiver) = mpsc::channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let tasks = BackgroundTasks::new();
    // The first waits for the second.
    let first = receiver.clone();
    tasks.add_blocking_task(move || first.lock().unwrap().recv());
    tasks.add_task(async move { sender.send(()) });
    drop(runner.attach(full("hello"), tasks.clone()));
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 2);
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    tasks.add_task(async move { opened.notified().await });
    tasks.add_task(async move { gate.notify_one() });
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 4);
}
