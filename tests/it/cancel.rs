//! Ending one task: while it runs, and while it waits.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Builder,
    task::{spawn_blocking, yield_now},
};
use tower_background_tasks::{
    BackgroundTasks, OnFailure, Order, Runner, RunnerBuilder, Task, TaskId, TaskInfo, TaskState,
};

use crate::support::{Log, block_on, full, hold, open_response, soon, turns, until};

/// The numbers of a queue's tasks, in order.
fn ids(runner: &Runner) -> Vec<TaskId> {
    runner.tasks().iter().map(TaskInfo::id).collect()
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
    assert_eq!(
        (runner.stats().aborted, ids(&runner).len()),
        (0, 1),
        "counted before it is told"
    );
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

/// Behind what holds the only place: a task that is cancelled, and a sibling that runs later.
async fn what_waits_is_dropped_by_cancel(runner: &Runner, task: impl FnOnce(Arc<()>) -> Task) {
    let (captured, log) = (Arc::new(()), Log::default());
    let (response, tasks) = open_response(runner);
    let id = tasks.try_add_task(task(Arc::clone(&captured))).unwrap();
    tasks.add_task(log.task("sibling"));
    drop((response, tasks));
    turns(20).await;
    let waits = |task: &TaskInfo| task.id() == id && task.state() == TaskState::Waiting;
    assert!(runner.tasks().iter().any(waits));
    assert!(runner.cancel(id));
    assert!(!runner.cancel(id), "it has ended");
    turns(10).await;
    assert_eq!(Arc::strong_count(&captured), 1, "what it captured");
    assert_eq!(runner.stats().aborted, 1);
}

fn async_task(captured: Arc<()>) -> Task {
    Task::new(async move { drop(captured) })
}

fn blocking_task(captured: Arc<()>) -> Task {
    Task::blocking(move || drop(captured))
}

/// All that is left ends once the place is free, each task once.
async fn all_ends(runner: &Runner, release: mpsc::Sender<()>) {
    drop(release);
    soon(runner.idle()).await;
    let stats = runner.stats();
    assert_eq!(stats.added, stats.completed + stats.aborted);
}

async fn behind_a_full(builder: RunnerBuilder, task: impl FnOnce(Arc<()>) -> Task) {
    let (runner, (release, holds)) = (builder.build(), hold());
    runner.add_task(holds);
    until(|| runner.stats().running == 1).await;
    what_waits_is_dropped_by_cancel(&runner, task).await;
    assert_eq!(runner.stats().running, 1, "the place is still taken");
    all_ends(&runner, release).await;
}

#[tokio::test]
async fn a_cancelled_task_that_waits_for_max_running_is_dropped() {
    behind_a_full(Runner::builder().max_running(1), async_task).await;
    behind_a_full(Runner::builder().max_running(1), blocking_task).await;
}

#[tokio::test]
async fn a_cancelled_task_that_waits_for_max_blocking_is_dropped() {
    behind_a_full(Runner::builder().max_blocking(1), blocking_task).await;
}

/// Behind a pool whose one thread somebody else holds.
fn behind_a_busy_pool(task: impl FnOnce(Arc<()>) -> Task) {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let (runner, (release, held)) = (Runner::new(), mpsc::channel::<()>());
        let holds = spawn_blocking(move || held.recv());
        what_waits_is_dropped_by_cancel(&runner, task).await;
        assert!(!holds.is_finished(), "the thread is still taken");
        all_ends(&runner, release).await;
    });
}

#[test]
fn a_cancelled_task_that_waits_for_a_thread_is_dropped() {
    behind_a_busy_pool(blocking_task);
}

#[test]
fn a_cancelled_task_with_a_timeout_that_waits_is_dropped() {
    behind_a_busy_pool(|captured| blocking_task(captured).timeout(Duration::from_secs(60)));
}

#[test]
fn a_cancelled_task_with_a_timeout_that_waits_for_a_thread_frees_its_place() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let runner = Runner::builder().max_running(1).build();
        let (release, held) = mpsc::channel::<()>();
        let holds = spawn_blocking(move || held.recv());
        runner.add_task(Task::blocking(|| ()).timeout(Duration::from_secs(60)));
        turns(20).await;
        runner.add_task(async {});
        assert!(runner.cancel(runner.tasks()[0].id()));
        until(|| runner.stats().completed == 1).await;
        assert!(!holds.is_finished(), "the thread is still taken");
        drop(release);
    });
}

#[tokio::test]
async fn supervised_task_whose_end_is_being_told_is_told_once() {
    let (reporting, is_reporting) = mpsc::channel();
    let (release_report, gate) = mpsc::channel::<()>();
    let (told, gate) = (Arc::new(AtomicUsize::new(0)), Mutex::new(gate));
    let count = Arc::clone(&told);
    let runner = Runner::builder()
        .on_task_end(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                reporting.send(()).unwrap();
                let _ = gate.lock().unwrap().recv();
            }
        })
        .build();
    let (release, holds) = hold();
    runner.add_task(holds.timeout(Duration::from_secs(60)));
    until(|| runner.stats().running == 1).await;
    let other = runner.clone();
    let shutdown = thread::spawn(move || block_on(other.shutdown(Duration::ZERO)));
    is_reporting.recv().unwrap();
    turns(20).await; // the batch is woken, and finds the task's end claimed
    drop((release_report, release));
    soon(runner.idle()).await;
    assert_eq!(shutdown.join().unwrap().unfinished().len(), 1);
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_waiting_task_is_dropped_before_its_end_is_told() {
    let (captured, alive) = (Arc::new(()), Arc::new(Mutex::new(Vec::new())));
    let (weak, seen) = (Arc::downgrade(&captured), Arc::clone(&alive));
    let runner = Runner::builder()
        .on_task_end(move |_| seen.lock().unwrap().push(weak.strong_count()))
        .build();
    let (_response, tasks) = open_response(&runner);
    let id = tasks.try_add_task(async move { drop(captured) }).unwrap();
    assert!(runner.cancel(id));
    assert_eq!(*alive.lock().unwrap(), [0]);
}

#[tokio::test]
async fn a_task_that_cancels_itself_and_waits_is_dropped() {
    let (runner, log) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    let (canceller, own) = (runner.clone(), Arc::new(Mutex::new(None)));
    let id = Arc::clone(&own);
    let task = async move {
        let id = id.lock().unwrap().take().unwrap();
        assert!(canceller.cancel(id));
        pending::<()>().await;
    };
    *own.lock().unwrap() = Some(tasks.try_add_task(task).unwrap());
    tasks.add_task(log.task("next"));
    drop((response, tasks));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["next"]);
    assert_eq!((runner.stats().aborted, runner.stats().completed), (1, 1));
}

#[tokio::test]
async fn nothing_holds_a_runner_whose_only_task_was_cancelled() {
    let held = Arc::new(());
    let observer = Arc::clone(&held);
    let builder = Runner::builder().on_task_end(move |_| drop(Arc::clone(&observer)));
    let runner = builder.build();
    let (response, tasks) = open_response(&runner);
    let id = tasks.try_add_task(async {}).unwrap();
    assert!(runner.cancel(id));
    drop((runner, response, tasks));
    assert_eq!(Arc::strong_count(&held), 1);
}
