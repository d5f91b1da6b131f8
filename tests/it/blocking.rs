//! Blocking tasks: the threads they run on, and those that get none.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::spawn_blocking,
};
use tower_background_tasks::{BackgroundTasks, Order, Runner, Task};

use crate::support::{
    LIMIT, Log, PanicsWhenDropped, hold, is_quiet, open_response, soon, turns, until, wait_for,
};

#[test]
fn blocking_task_awaiting_a_thread_when_runtime_ends_is_counted() {
    let runner = Runner::new();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    runtime.block_on(async {
        runner.add_blocking_task(move || {
            started.send(()).unwrap();
            let _ = gate.recv();
        });
        for _ in 0..3 {
            runner.add_blocking_task(|| ());
        }
    });
    has_started.recv().unwrap();
    runtime.shutdown_background();
    drop(release);
    wait_for(|| is_quiet(&runner));
    let stats = runner.stats();
    // Whether Tokio still runs them or drops them is its own affair.
    assert_eq!((stats.added, stats.aborted + stats.completed), (4, 4));
}

#[test]
fn without_system_threads_blocking_tasks_wait_until_the_runtime_goes() {
    let runner = Runner::new();
    let mut builder = Builder::new_current_thread();
    builder.thread_stack_size(usize::MAX / 4); // no thread has so much memory
    let runtime = builder.enable_time().build().unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            runner.add_blocking_task(|| ());
        }
        turns(100).await;
    });
    assert_eq!(runner.stats().pending, 3);
    drop(runtime);
    let stats = runner.stats();
    assert_eq!((stats.aborted, stats.pending), (3, 0));
}

#[test]
fn blocking_task_waiting_for_a_thread_is_dropped_at_shutdown() {
    let (runner, held) = (Runner::new(), Arc::new(()));
    let mut builder = Builder::new_current_thread();
    builder.thread_stack_size(usize::MAX / 4);
    let runtime = builder.enable_time().build().unwrap();
    runtime.block_on(async {
        let task = Arc::clone(&held);
        runner.add_blocking_task(move || drop(task));
        turns(100).await;
        let report = runner.shutdown(Duration::ZERO).await;
        assert_eq!(report.unfinished().len(), 1);
        assert_eq!(Arc::strong_count(&held), 1);
    });
}

#[test]
fn without_a_timer_or_system_threads_blocking_tasks_are_aborted() {
    let runner = Runner::new();
    let mut builder = Builder::new_current_thread();
    let runtime = builder.thread_stack_size(usize::MAX / 4).build().unwrap();
    runtime.block_on(async {
        for aborted in [3, 6] {
            for _ in 0..3 {
                runner.add_blocking_task(|| ());
            }
            turns(100).await;
            assert_eq!(runner.stats().aborted, aborted);
        }
    });
}

#[test]
fn blocking_task_dropped_before_it_gets_a_thread_never_runs() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let log = Log::default();
    runtime.block_on(async {
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let (tasks, task_log) = (BackgroundTasks::new(), log.clone());
        tasks.add_blocking_task(move || task_log.write("must not run"));
        let run = tokio::time::timeout(Duration::from_millis(10), tasks.run());
        assert!(run.await.is_err());
        drop(release);
        assert!(busy.await.is_ok());
        // Takes the one thread behind it.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    assert!(log.lines().is_empty());
}

/// A blocking task that adds another of its kind.
fn add_forever(tasks: &BackgroundTasks) {
    thread::sleep(Duration::from_millis(1));
    let again = tasks.clone();
    tasks.add_blocking_task(move || add_forever(&again));
}

/// Drops, within a deadline, a runtime on which a request's blocking tasks follow one another without an end.
fn goes_away(runtime: Runtime) {
    let runner = Runner::new();
    runtime.block_on(async {
        let (response, tasks) = open_response(&runner);
        add_forever(&tasks);
        drop(response);
        until(|| runner.stats().completed > 0).await;
    });
    let (gone, is_gone) = mpsc::channel();
    thread::spawn(move || {
        drop(runtime);
        gone.send(()).unwrap();
    });
    is_gone.recv_timeout(LIMIT).expect("the runtime goes away");
    let stats = runner.stats();
    assert!(stats.aborted > 0);
    assert_eq!(stats.added, stats.aborted + stats.completed);
}

#[test]
fn a_runtime_going_away_waits_for_no_endless_blocking_tasks() {
    let mut builder = Builder::new_multi_thread();
    goes_away(builder.worker_threads(1).enable_all().build().unwrap());
    let mut builder = Builder::new_current_thread();
    let paused = builder.enable_all().start_paused(true);
    goes_away(paused.build().unwrap());
}

/// Each is of no request, so that none is behind another.
fn add_forever_beside(runner: &Runner, stop: &Arc<AtomicBool>) {
    let (again, stop) = (runner.clone(), Arc::clone(stop));
    runner.add_blocking_task(move || {
        if !stop.load(Ordering::Relaxed) {
            add_forever_beside(&again, &stop);
        }
    });
}

/// Each is of the same request.
fn add_forever_behind(tasks: &BackgroundTasks, stop: &Arc<AtomicBool>) {
    let (again, stop) = (tasks.clone(), Arc::clone(stop));
    tasks.add_blocking_task(move || {
        if !stop.load(Ordering::Relaxed) {
            add_forever_behind(&again, &stop);
        }
    });
}

#[test]
fn endless_blocking_tasks_leave_the_pool_to_others_in_between() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    for of_one_request in [false, true] {
        let (runner, stop) = (Runner::new(), Arc::new(AtomicBool::new(false)));
        runtime.block_on(async {
            let (response, tasks) = open_response(&runner);
            match of_one_request {
                true => add_forever_behind(&tasks, &stop),
                false => add_forever_beside(&runner, &stop),
            }
            drop(response);
            for _ in 0..3 {
                soon(spawn_blocking(|| ())).await.unwrap();
            }
            assert!(runner.stats().completed > 0);
            stop.store(true, Ordering::Relaxed);
            soon(runner.idle()).await;
        });
        assert_eq!(runner.stats().added, runner.stats().completed);
    }
}

#[tokio::test]
async fn a_blocking_task_waits_for_none_of_another_request() {
    let (runner, (release, holds)) = (Runner::new(), hold());
    runner.add_task(holds);
    let log = Log::default();
    for number in 0..10 {
        let log = log.clone();
        let (response, tasks) = open_response(&runner);
        tasks.add_blocking_task(move || log.write(number.to_string()));
        drop(response);
    }
    until(|| runner.stats().completed == 10).await;
    assert_eq!((runner.stats().running, log.lines().len()), (1, 10));
    drop(release);
    soon(runner.idle()).await;
}

/// Notes whether it runs on the thread that makes this.
fn notes_its_thread(on_worker: &Arc<Mutex<Vec<bool>>>) -> impl FnOnce() + Send + use<> {
    let (worker, on_worker) = (thread::current().id(), Arc::clone(on_worker));
    move || {
        let is_worker = thread::current().id() == worker;
        on_worker.lock().unwrap().push(is_worker);
    }
}

#[tokio::test]
async fn no_blocking_task_runs_on_a_worker_whatever_came_before() {
    let (runner, on_worker) = (Runner::new(), Arc::default());
    let (response, tasks) = open_response(&runner);
    tasks.add_task(async {});
    tasks.add_blocking_task(notes_its_thread(&on_worker));
    tasks.add_task(async { Err::<(), _>("on purpose") });
    tasks.add_blocking_task(notes_its_thread(&on_worker));
    let (again, late) = (tasks.clone(), notes_its_thread(&on_worker));
    tasks.add_task(async move { again.add_blocking_task(late) });
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(*on_worker.lock().unwrap(), [false; 3]);
}

#[tokio::test]
async fn blocking_task_behind_a_cancelled_one_runs_on_no_worker() {
    for timeout in [None, Some(Duration::from_secs(5))] {
        let (runner, on_worker) = (Runner::new(), Arc::default());
        let (response, tasks) = open_response(&runner);
        let mut first = Task::new(async {});
        if let Some(timeout) = timeout {
            first = first.timeout(timeout);
        }
        let id = tasks.try_add_task(first).unwrap();
        tasks.add_blocking_task(notes_its_thread(&on_worker));
        drop(response);
        assert!(runner.cancel(id));
        soon(runner.idle()).await;
        assert_eq!(*on_worker.lock().unwrap(), [false]);
    }
}

#[test]
fn async_task_ahead_of_blocking_ones_waits_for_no_thread() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let (runner, log) = (Runner::new(), Log::default());
        let (response, used) = open_response(&runner);
        used.add_blocking_task(|| ());
        drop(response);
        soon(runner.idle()).await;
        let (release, held) = mpsc::channel::<()>();
        spawn_blocking(move || held.recv());
        used.add_task(log.task("behind one that has ended"));
        until(|| log.lines().len() == 1).await;
        let (response, tasks) = open_response(&runner);
        tasks.add_task(log.task("ahead"));
        tasks.add_blocking_task(|| ());
        drop(response);
        until(|| log.lines().len() == 2).await;
        drop(release);
        soon(runner.idle()).await;
        assert_eq!(runner.stats().completed, 4);
    });
}

#[tokio::test]
async fn condition_of_an_async_task_is_asked_on_a_worker() {
    let (runner, on_worker) = (Runner::new(), Arc::default());
    let notes = Mutex::new(Some(notes_its_thread(&on_worker)));
    let (response, tasks) = open_response(&runner);
    tasks.add_blocking_task(|| ());
    tasks.add_task(Task::new(async {}).run_if(move |_| {
        let notes = notes.lock().unwrap().take();
        notes.map(|notes| notes()).is_some()
    }));
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(*on_worker.lock().unwrap(), [true]);
    assert_eq!(runner.stats().completed, 2);
}

#[test]
fn destructor_panics_of_a_task_without_a_thread_are_told() {
    let (runner, (release, held)) = (Runner::new(), mpsc::channel::<()>());
    let mut builder = Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        spawn_blocking(move || held.recv());
        let panics = PanicsWhenDropped;
        let task = Task::blocking(move || drop(panics));
        runner.add_task(task.timeout(Duration::from_secs(60)));
        turns(10).await;
    });
    runtime.shutdown_background();
    drop(release);
    let stats = runner.stats();
    assert_eq!((stats.panicked, stats.pending), (1, 0));
}

#[test]
fn a_blocking_tasks_timeout_counts_from_its_beginning() {
    let mut builder = Builder::new_current_thread();
    builder.max_blocking_threads(1).start_paused(true);
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async {
        let (runner, (release, held)) = (Runner::new(), mpsc::channel::<()>());
        spawn_blocking(move || held.recv());
        let (go, going) = mpsc::channel::<()>();
        let task = Task::blocking(move || going.recv());
        runner.add_task(task.timeout(Duration::from_secs(60)));
        turns(20).await;
        tokio::time::advance(Duration::from_secs(61)).await;
        drop(release);
        wait_for(|| runner.stats().running == 1);
        turns(20).await;
        drop(go);
        soon(runner.idle()).await;
        assert_eq!(runner.stats().timed_out, 0);
    });
}

#[test]
fn a_concurrent_task_takes_a_thread_once() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let runner = Runner::builder().order(Order::Concurrent).build();
        let (response, tasks) = open_response(&runner);
        let (go_on, waits) = mpsc::channel::<()>();
        tasks.add_blocking_task(move || {
            let _ = waits.recv();
            std::thread::sleep(Duration::from_millis(30));
        });
        drop(response);
        until(|| runner.stats().running == 1).await;
        let (release, held) = mpsc::channel::<()>();
        spawn_blocking(move || held.recv());
        drop(go_on);
        soon(runner.idle()).await;
        drop(release);
        assert_eq!(runner.stats().completed, 1);
    });
}
