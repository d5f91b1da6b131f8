//! What a task may be, give back, and be limited by.

use std::{
    future::pending,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::time::Instant;
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, Task, TaskEnd, TaskResult};

use crate::support::{Log, full, get, respond, soon, until};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn unit_result_and_never_are_outputs() {
    fn fails() -> Result<u32, BoxError> {
        Err("no".into())
    }
    let tasks = BackgroundTasks::new();
    tasks.add_task(async {});
    tasks.add_task(async { TaskResult::<BoxError>::Ok(()) });
    tasks.add_task(async { "7".parse::<u32>() });
    tasks.add_task(async { fails() });
    tasks.add_blocking_task(|| fails().map(drop));
    tasks.add_task(
        Task::new(async {
            loop {
                pending::<()>().await
            }
        })
        .timeout(Duration::ZERO),
    );
    tasks.add_blocking_task(|| panic!("never gives back"));
    let ends: Vec<_> = tasks.run().await.iter().map(TaskEnd::to_string).collect();
    assert_eq!(
        ends,
        [
            "completed",
            "completed",
            "completed",
            "failed: no",
            "failed: no",
            "timed out",
            "panicked: never gives back"
        ]
    );
}

#[tokio::test]
async fn an_error_is_shown_with_its_causes_once() {
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cannot read the port")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let tasks = BackgroundTasks::new();
    tasks.add_task(async { "x".parse::<u16>().map_err(Outer) });
    let ends = tasks.run().await;
    assert_eq!(
        ends[0].to_string(),
        "failed: cannot read the port: invalid digit found in string"
    );
}

#[tokio::test(start_paused = true)]
async fn task_past_its_timeout_is_dropped_and_the_next_starts() {
    let (runner, log) = (Runner::new(), Log::default());
    let held = Arc::new(());
    let response = respond(&runner, get("/"), |tasks| {
        let held = held.clone();
        let stuck = async move {
            pending::<()>().await;
            drop(held);
        };
        tasks.add_task(Task::new(stuck).timeout(SECOND));
        tasks.add_task(log.task("next"));
        full("hello")
    })
    .await;
    let begun = Instant::now();
    drop(response);
    runner.idle().await;
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(log.lines(), ["next"]);
    assert_eq!((runner.stats().timed_out, runner.stats().completed), (1, 1));
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_does_not_count_against_a_timeout() {
    let runner = Runner::new();
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(async { tokio::time::sleep(5 * SECOND).await });
        tasks.add_task(Task::new(async { tokio::time::sleep(SECOND / 2).await }).timeout(SECOND));
        full("hello")
    })
    .await;
    tokio::time::sleep(5 * SECOND).await;
    drop(response);
    runner.idle().await;
    assert_eq!(runner.stats().completed, 2);
}

#[tokio::test]
async fn task_that_ends_in_time_is_not_timed_out() {
    let runner = Runner::new();
    runner.add_task(Task::new(async {}).timeout(SECOND));
    runner.add_task(Task::blocking(|| ()).timeout(10 * SECOND));
    runner.add_task(Task::new(async {}).timeout(Duration::MAX));
    soon(runner.idle()).await;
    assert_eq!((runner.stats().completed, runner.stats().timed_out), (3, 0));
}

#[tokio::test]
async fn next_task_starts_while_a_timed_out_blocking_one_runs() {
    let (runner, log) = (Runner::new(), Log::default());
    let (release, gate) = mpsc::channel::<()>();
    let mut gate = Some(gate);
    let task_log = log.clone();
    let mut stuck = Some(move || {
        let _ = gate.take().unwrap().recv();
        task_log.write("returned");
    });
    let tasks = BackgroundTasks::new();
    tasks.add_task(Task::blocking(stuck.take().unwrap()).timeout(Duration::from_millis(1)));
    tasks.add_task(log.task("next"));
    drop(runner.attach(full("hello"), tasks));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["next"]);
    drop(release);
    until(|| log.lines().len() >= 2).await;
    let stats = runner.stats();
    assert_eq!((stats.timed_out, stats.completed, stats.added), (1, 1, 2));
}

#[tokio::test]
async fn a_context_knows_the_tasks_name_and_outlives_the_task() {
    let runner = Runner::new();
    let (sender, receiver) = mpsc::channel();
    runner.add_task(
        Task::with_context(|cx| async move { sender.send(cx.clone()).map_err(|_| "gone") })
            .named("keeps-its-context"),
    );
    soon(runner.idle()).await;
    let cx = receiver.recv().unwrap();
    assert_eq!(cx.name(), "keeps-its-context");
    assert!(format!("{cx:?}").contains("keeps-its-context"));
}

#[tokio::test]
async fn blocking_tasks_run_off_the_async_workers() {
    let runner = Runner::new();
    let here = std::thread::current().id();
    for task in [
        Task::blocking(move || assert_ne!(std::thread::current().id(), here)),
        Task::blocking_with_context(move |_| assert_ne!(std::thread::current().id(), here)),
        Task::blocking(move || assert_ne!(std::thread::current().id(), here)).timeout(10 * SECOND),
    ] {
        runner.add_task(task);
    }
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 3);
}

#[tokio::test]
async fn task_using_up_its_budget_each_poll_is_timed_out() {
    let runner = Runner::new();
    let busy = async {
        loop {
            tokio::task::coop::consume_budget().await;
        }
    };
    runner.add_task(Task::new(busy).timeout(Duration::from_millis(20)));
    soon(runner.idle()).await;
    assert_eq!(runner.stats().timed_out, 1);
}

#[tokio::test]
async fn a_skipped_task_ran_for_no_time() {
    let (log, slow) = (Log::default(), Duration::from_millis(1));
    let seen = log.clone();
    let runner = Runner::builder()
        .on_task_end(move |report| seen.write(format!("{:?}", report.ran())))
        .build();
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(Task::new(async {}).run_if(move |_| {
            std::thread::sleep(slow);
            false
        }));
        full("hello")
    });
    drop(response.await);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["0ns"]);
}
