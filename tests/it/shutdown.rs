//! Shutdown: told, drained, aborted, named, closed.

use std::{
    future::pending,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};
use tower_background_tasks::{
    AddTaskError, BackgroundTasks, Order, Runner, Task, TaskEnd, TaskKind, TaskState,
};

use crate::support::{
    Log, PanicsWhenDropped, full, get, hold, open_response, respond, soon, until,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn it_is_clean_as_soon_as_all_tasks_are_done() {
    let runner = Runner::new();
    runner.add_task(async { sleep(3 * SECOND).await });
    let begun = Instant::now();
    let report = runner.shutdown(10 * SECOND).await;
    assert!(report.is_clean());
    assert_eq!(report.to_string(), "all background tasks ended");
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(runner.stats().completed, 1);
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_tasks_whose_response_has_not_ended() {
    let runner = Runner::new();
    let log = Log::default();
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(log.task("ran"));
        full("hello")
    })
    .await;
    tokio::spawn(async move {
        sleep(2 * SECOND).await;
        drop(response);
    });
    assert!(runner.shutdown(10 * SECOND).await.is_clean());
    assert_eq!(log.lines(), ["ran"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_ending_together_all_name_what_either_aborts() {
    for _ in 0..200 {
        let runner = Runner::new();
        for _ in 0..100 {
            runner.add_task(pending::<()>());
        }
        let calls = [(); 2].map(|()| {
            let runner = runner.clone();
            tokio::spawn(async move { runner.shutdown(Duration::from_millis(1)).await })
        });
        for call in calls {
            assert_eq!(call.await.unwrap().unfinished().len(), 100);
        }
        assert_eq!(runner.stats().aborted, 100);
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_grace_the_rest_is_aborted_and_named() {
    for order in [Order::Sequential, Order::Concurrent] {
        let runner = Runner::builder().order(order).build();
        let log = Log::default();
        let response = respond(&runner, get("/orders/7?full=1"), |tasks| {
            tasks.add_task(Task::new(pending::<()>()).named("stuck"));
            tasks.add_task(Task::new(log.task("by order")).named("behind"));
            full("hello")
        })
        .await;
        drop(response);
        let open = respond(&runner, get("/open"), |tasks| {
            tasks.add_task(Task::blocking(|| panic!("must not run")).named("open"));
            full("hello")
        })
        .await;
        sleep(SECOND).await;
        runner.add_task(Task::new(pending::<()>()).named("of no request"));
        let report = runner.shutdown(2 * SECOND).await;
        assert!(!report.is_clean());
        let rows: Vec<_> = report
            .unfinished()
            .iter()
            .map(|task| {
                let request = task
                    .method()
                    .map(|method| format!("{method} {:?}", task.path()));
                (
                    task.name(),
                    task.state(),
                    task.kind(),
                    task.age().as_secs(),
                    request,
                )
            })
            .collect();
        let orders = Some(r#"GET Some("/orders/7")"#.to_owned());
        let open_request = Some(r#"GET Some("/open")"#.to_owned());
        let mut expected = vec![
            (
                "stuck",
                TaskState::Running,
                TaskKind::Async,
                3,
                orders.clone(),
            ),
            ("behind", TaskState::Waiting, TaskKind::Async, 3, orders),
            (
                "open",
                TaskState::Waiting,
                TaskKind::Blocking,
                3,
                open_request,
            ),
            (
                "of no request",
                TaskState::Running,
                TaskKind::Async,
                2,
                None,
            ),
        ];
        if order == Order::Concurrent {
            expected.remove(1);
        }
        assert_eq!(rows.len(), expected.len());
        assert!(expected.iter().all(|row| rows.contains(row)), "{rows:?}");
        assert_eq!(rows.last(), expected.last());
        assert!(report.to_string().contains(
            "stuck: running for 3.0s, for GET /orders/7, added at tests/it/shutdown.rs:"
        ));
        let stats = runner.stats();
        assert_eq!(stats.aborted, expected.len() as u64);
        assert_eq!(stats.added, stats.aborted + stats.completed);
        assert_eq!((stats.pending, stats.running), (0, 0));
        drop(open);
        runner.idle().await;
        assert_eq!(runner.stats(), stats);
    }
}

#[tokio::test(start_paused = true)]
async fn running_tasks_are_told_and_have_the_grace_to_end() {
    let runner = Runner::new();
    let log = Log::default();
    for number in 0..2 {
        let log = log.clone();
        runner.add_task(Task::with_context(move |cx| async move {
            assert!(!cx.is_shutting_down());
            cx.shutting_down().await;
            assert!(cx.is_shutting_down());
            sleep(SECOND).await;
            log.write(number.to_string());
        }));
    }
    sleep(SECOND).await;
    assert!(runner.shutdown(2 * SECOND).await.is_clean());
    assert_eq!(log.lines().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn tasks_added_by_tasks_and_requests_during_the_grace_run() {
    let runner = Runner::new();
    let log = Log::default();
    let (inner, nested) = (runner.clone(), log.clone());
    let tasks = BackgroundTasks::new();
    let (again, own) = (tasks.clone(), log.clone());
    tasks.add_task(Task::with_context(|cx| async move {
        cx.shutting_down().await;
        again.add_task(own.task("own queue"));
        inner.add_task(nested.task("of no request"));
    }));
    drop(runner.attach(full("hello"), tasks));
    let in_flight = BackgroundTasks::new();
    let response = runner.attach(full("hello"), in_flight.clone());
    in_flight.add_task(log.task("in flight"));
    let late = log.clone();
    tokio::spawn(async move {
        sleep(SECOND).await;
        in_flight.add_task(late.task("in flight, during the grace"));
        drop(response);
    });
    assert!(runner.shutdown(5 * SECOND).await.is_clean());
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "in flight",
            "in flight, during the grace",
            "of no request",
            "own queue"
        ]
    );
}

#[tokio::test]
async fn afterwards_everything_is_refused_and_counted() {
    let runner = Runner::new();
    let idle_tasks = BackgroundTasks::new();
    drop(runner.attach(full("hello"), idle_tasks.clone()));
    let open_tasks = BackgroundTasks::new();
    let open = runner.attach(full("hello"), open_tasks.clone());
    assert!(runner.shutdown(SECOND).await.is_clean());
    for tasks in [idle_tasks, open_tasks] {
        let refused = tasks.try_add_task(async {}).unwrap_err();
        assert!(matches!(refused, AddTaskError::Closed(_)));
        assert!(
            refused
                .to_string()
                .contains("stop the server before the runner")
        );
        tasks.add_task(async { panic!("must not run") });
    }
    assert!(runner.try_add_task(async {}).is_err());
    runner.add_blocking_task(|| panic!("must not run"));
    let tasks = BackgroundTasks::new();
    tasks.add_task(async { panic!("must not run") });
    drop(runner.attach(full("hello"), tasks));
    drop(open);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.rejected), (4, 4));
    soon(runner.idle()).await;
}

#[tokio::test]
async fn running_blocking_task_is_named_once_and_its_thread_continues() {
    let runner = Runner::new();
    let (release, gate) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let log = Log::default();
    let task_log = log.clone();
    let tasks = BackgroundTasks::new();
    tasks.add_task(
        Task::blocking(move || {
            started.send(()).unwrap();
            let _ = gate.recv();
            task_log.write("returned");
        })
        .named("stuck"),
    );
    tasks.add_blocking_task(|| panic!("must not run"));
    drop(runner.attach(full("hello"), tasks));
    tokio::task::spawn_blocking(move || has_started.recv().unwrap())
        .await
        .unwrap();
    let report = soon(runner.shutdown(Duration::from_millis(1))).await;
    assert_eq!(report.unfinished().len(), 2);
    assert_eq!(report.unfinished()[0].name(), "stuck");
    assert_eq!(report.unfinished()[0].kind(), TaskKind::Blocking);
    assert_eq!(runner.stats().aborted, 2);
    drop(release);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["returned"]);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.aborted, stats.completed), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_for_a_place_are_aborted_and_dropped() {
    let runner = Runner::builder().max_running(1).max_blocking(1).build();
    let held = Arc::new(());
    for _ in 0..10 {
        let captured = held.clone();
        runner.add_task(async move {
            pending::<()>().await;
            drop(captured);
        });
        let captured = held.clone();
        runner.add_blocking_task(move || drop(captured));
    }
    let report = runner.shutdown(SECOND).await;
    let running = report
        .unfinished()
        .iter()
        .filter(|task| task.running_for().is_some());
    assert_eq!((report.unfinished().len(), running.count()), (20, 1));
    runner.idle().await;
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(runner.stats().aborted, 20);
}

#[tokio::test(start_paused = true)]
async fn a_second_call_returns_the_same_report_at_once() {
    let runner = Runner::new();
    runner.add_task(Task::new(pending::<()>()).named("stuck"));
    let first = runner.shutdown(SECOND).await;
    let begun = Instant::now();
    let second = runner.shutdown(100 * SECOND).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(first.unfinished()[0].name(), "stuck");
    assert_eq!(second.unfinished()[0].id(), first.unfinished()[0].id());
    assert_eq!(second.unfinished().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shortest_grace_ends_concurrent_calls_with_the_same_report() {
    let runner = Runner::new();
    runner.add_task(Task::new(pending::<()>()).named("stuck"));
    let begun = Instant::now();
    let (one, other) = tokio::join!(runner.shutdown(50 * SECOND), runner.shutdown(SECOND));
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!((one.unfinished().len(), other.unfinished().len()), (1, 1));
    assert_eq!(runner.stats().aborted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_tells_the_tasks_and_aborts_nothing() {
    let runner = Runner::new();
    let log = Log::default();
    let told = log.clone();
    runner.add_task(Task::with_context(|cx| async move {
        cx.shutting_down().await;
        told.write("told");
        sleep(10 * SECOND).await;
        told.write("done");
    }));
    assert!(
        tokio::time::timeout(SECOND, runner.shutdown(5 * SECOND))
            .await
            .is_err()
    );
    sleep(10 * SECOND).await;
    assert_eq!(log.lines(), ["told", "done"]);
    runner.try_add_task(log.task("still taken")).unwrap();
    assert!(runner.shutdown(SECOND).await.is_clean());
    assert_eq!(log.lines().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn task_that_shuts_its_runner_down_is_aborted_and_named() {
    let runner = Runner::new();
    let log = Log::default();
    let (inner, task_log) = (runner.clone(), log.clone());
    runner.add_task(
        Task::new(async move {
            let report = inner.shutdown(SECOND).await;
            task_log.write(report.unfinished()[0].name());
            tokio::task::yield_now().await;
            task_log.write("must not get here");
        })
        .named("suicidal"),
    );
    runner.idle().await;
    assert_eq!(log.lines(), ["suicidal"]);
    assert_eq!(runner.stats().aborted, 1);
}

#[test]
fn it_needs_neither_a_runtime_nor_a_timer() {
    let runner = Runner::new();
    assert!(
        runner
            .shutdown(Duration::MAX)
            .now_or_never()
            .unwrap()
            .is_clean()
    );
    let runner = Runner::new();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    tasks.add_task(async {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let report = runtime.block_on(runner.shutdown(Duration::from_millis(5)));
    assert_eq!(report.unfinished().len(), 1);
    drop(response);
    assert_eq!(runner.stats().aborted, 1);
}

#[tokio::test]
async fn an_abort_contains_panicking_destructors() {
    let runner = Runner::new();
    let tasks = BackgroundTasks::new();
    for _ in 0..3 {
        let captured = PanicsWhenDropped;
        tasks.add_task(async move {
            pending::<()>().await;
            drop(captured);
        });
    }
    drop(runner.attach(full("hello"), tasks));
    let report = soon(runner.shutdown(Duration::from_millis(1))).await;
    assert_eq!(report.unfinished().len(), 3);
    soon(runner.idle()).await;
    assert_eq!(runner.stats().aborted, 3);
}

#[tokio::test]
async fn tasks_behind_a_stuck_blocking_task_are_dropped_at_once() {
    let runner = Runner::builder().max_running(1).build();
    let (release, gate) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    runner.add_blocking_task(move || {
        started.send(()).unwrap();
        let _ = gate.recv();
    });
    tokio::task::spawn_blocking(move || has_started.recv().unwrap())
        .await
        .unwrap();
    let held = Arc::new(());
    for _ in 0..3 {
        let captured = held.clone();
        runner.add_task(async move { drop(captured) });
    }
    let report = soon(runner.shutdown(Duration::from_millis(1))).await;
    assert_eq!(report.unfinished().len(), 4);
    assert_eq!(Arc::strong_count(&held), 1);
    drop(release);
    soon(runner.idle()).await;
}

#[tokio::test(start_paused = true)]
async fn it_sees_the_end_of_a_task_run_by_hand() {
    let runner = Runner::new();
    let tasks = BackgroundTasks::new();
    let _response = runner.attach(full("hello"), tasks.clone());
    tasks.add_task(async { sleep(SECOND).await });
    let by_hand = tokio::spawn(async move { tasks.run().await.len() });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    assert!(runner.shutdown(10 * SECOND).await.is_clean());
    assert_eq!(begun.elapsed(), SECOND);
    assert_eq!(by_hand.await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_on_different_threads_tell_the_same_of_many_tasks() {
    for _ in 0..20 {
        let runner = Runner::builder().max_running(1).build();
        for _ in 0..2_000 {
            runner.add_task(pending::<()>());
        }
        let other = runner.clone();
        let patient = tokio::spawn(async move { other.shutdown(50 * SECOND).await });
        let report = runner.shutdown(Duration::from_millis(1)).await;
        assert_eq!(report.unfinished().len(), 2_000);
        assert_eq!(soon(patient).await.unwrap().unfinished().len(), 2_000);
    }
}

/// What was added by an observer, once it was told of an aborted task of `tasks`: `false` for each that was refused.
#[derive(Clone, Default)]
struct AddsWhenTold(Arc<Mutex<(Option<BackgroundTasks>, Vec<bool>)>>);

impl AddsWhenTold {
    fn told(&self, end: &TaskEnd) {
        let Some(tasks) = self.0.lock().unwrap().0.clone() else {
            return;
        };
        if matches!(end, TaskEnd::Aborted) {
            tasks.add_task(async { panic!("must not run") });
            let is_taken = tasks.try_add_task(async { panic!("must not run") }).is_ok();
            self.0.lock().unwrap().1.push(is_taken);
        }
    }
}

#[tokio::test]
async fn what_an_observer_adds_when_told_of_aborts_is_rejected() {
    for order in [Order::Sequential, Order::Concurrent] {
        let adds = AddsWhenTold::default();
        let tells = adds.clone();
        let runner = Runner::builder()
            .order(order)
            .on_task_end(move |report| tells.told(report.end()))
            .build();
        let (response, tasks) = open_response(&runner);
        adds.0.lock().unwrap().0 = Some(tasks.clone());
        tasks.add_task(pending::<()>());
        tasks.add_task(pending::<()>());
        let (release, holds) = hold();
        tasks.add_task(holds);
        drop(response);
        let running = match order {
            Order::Sequential => 1,
            _ => 3,
        };
        until(|| runner.stats().running == running).await;
        let report = soon(runner.shutdown(Duration::ZERO)).await;
        assert_eq!(report.unfinished().len(), 3);
        drop(release);
        soon(runner.idle()).await;
        assert_eq!(adds.0.lock().unwrap().1, [false; 3]);
        let stats = runner.stats();
        assert_eq!((stats.added, stats.aborted, stats.rejected), (6, 3, 3));
        assert_eq!((stats.pending, stats.running), (0, 0));
        adds.0.lock().unwrap().0 = None; // it keeps the runner that keeps it
    }
}

#[tokio::test]
async fn an_overdue_task_is_not_aborted_as_well() {
    let (runner, (release, holds)) = (Runner::new(), hold());
    runner.add_task(holds.timeout(Duration::from_millis(1)));
    until(|| runner.stats().timed_out == 1).await;
    runner.add_task(Task::new(pending::<()>()).named("stuck"));
    let report = runner.shutdown(Duration::ZERO).await;
    assert_eq!(report.unfinished().len(), 1, "{report}");
    assert_eq!(report.unfinished()[0].name(), "stuck");
    drop(release);
    until(|| runner.tasks().is_empty()).await;
    let stats = runner.stats();
    assert_eq!((stats.added, stats.timed_out, stats.aborted), (2, 1, 1));
}

#[tokio::test]
async fn nothing_holds_a_runner_whose_overdue_task_has_returned() {
    let (held, (release, holds)) = (Arc::new(()), hold());
    let observer = Arc::clone(&held);
    let builder = Runner::builder().on_task_end(move |_| drop(Arc::clone(&observer)));
    let runner = builder.build();
    runner.add_task(holds.timeout(Duration::from_millis(1)));
    until(|| runner.stats().timed_out == 1).await;
    drop((runner, release));
    until(|| Arc::strong_count(&held) == 1).await;
}

#[tokio::test]
async fn an_aborted_task_whose_thread_goes_on_is_not_listed() {
    for timeout in [None, Some(60 * SECOND)] {
        let (runner, (release, mut holds)) = (Runner::new(), hold());
        if let Some(timeout) = timeout {
            holds = holds.timeout(timeout);
        }
        runner.add_task(holds);
        until(|| runner.stats().running == 1).await;
        let report = runner.shutdown(Duration::ZERO).await;
        assert_eq!(report.unfinished().len(), 1);
        assert!(runner.tasks().is_empty(), "{:?}", runner.tasks());
        drop(release);
        soon(runner.idle()).await;
    }
}
