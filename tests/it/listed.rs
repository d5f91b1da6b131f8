//! A task is listed until its end has been told, however it ends.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tower_background_tasks::{OnFailure, Order, Runner, RunnerBuilder, Task, TaskId};

use crate::support::{hold, open_response, soon, turns, until};

fn is_listed(runner: &Runner, id: TaskId) -> bool {
    runner.tasks().iter().any(|task| task.id() == id)
}

/// What the observer was told of which task, and whether the task was listed then.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Line>>>);

type Line = (TaskId, &'static str, bool);

impl Told {
    /// A runner that notes each end here.
    fn runner(&self, set_up: impl Fn(RunnerBuilder) -> RunnerBuilder) -> Arc<Runner> {
        let told = self.clone();
        Arc::new_cyclic(|weak: &Weak<Runner>| {
            let weak = weak.clone();
            let builder = set_up(Runner::builder()).on_task_end(move |report| {
                let runner = weak.upgrade().unwrap();
                let line = (
                    report.id(),
                    report.end().as_str(),
                    is_listed(&runner, report.id()),
                );
                told.0.lock().unwrap().push(line);
            });
            builder.build()
        })
    }

    /// `count` tasks have ended in this way, each told once, listed until then and not afterwards.
    async fn each_once(&self, runner: &Runner, end: &str, count: usize) {
        soon(runner.idle()).await;
        assert!(runner.tasks().is_empty(), "all have ended");
        let mut told = self.0.lock().unwrap().clone();
        told.retain(|(_, as_str, _)| *as_str == end);
        let unlisted = told.iter().filter(|(.., is_listed)| !is_listed).count();
        told.sort();
        told.dedup_by_key(|(id, ..)| *id);
        assert_eq!(told.len(), count, "{end}");
        assert_eq!(
            self.0.lock().unwrap().len(),
            count,
            "told twice, or otherwise"
        );
        assert_eq!(unlisted, 0, "of {count} {end}, not listed when told");
    }
}

/// Async and blocking tasks of one request that end in this way.
async fn ends_listed(
    end: &str,
    task: impl Fn(bool) -> Task,
    set_up: fn(RunnerBuilder) -> RunnerBuilder,
) {
    for order in [Order::Sequential, Order::Concurrent] {
        let told = Told::default();
        let runner = told.runner(|builder| set_up(builder).order(order));
        let (response, tasks) = open_response(&runner);
        for blocking in [false, true, false, true] {
            tasks.add_task(task(blocking));
        }
        drop((response, tasks));
        told.each_once(&runner, end, 4).await;
    }
}

#[tokio::test]
async fn a_completed_task_is_listed_until_told() {
    let task = |blocking| match blocking {
        true => Task::blocking(|| ()),
        false => Task::new(async {}),
    };
    ends_listed("completed", task, |builder| builder).await;
    ends_listed("completed", task, |builder| builder.max_running(1)).await;
}

#[tokio::test]
async fn a_failed_task_is_listed_until_told() {
    let task = |blocking| match blocking {
        true => Task::blocking(|| Err::<(), _>("on purpose")),
        false => Task::new(async { Err::<(), _>("on purpose") }),
    };
    ends_listed("failed", task, |builder| builder).await;
}

#[tokio::test]
async fn a_panicked_task_is_listed_until_told() {
    let task = |blocking| match blocking {
        true => Task::blocking(|| panic!("on purpose")),
        false => Task::new(async { panic!("on purpose") }),
    };
    ends_listed("panicked", task, |builder| builder).await;
}

#[tokio::test]
async fn a_timed_out_task_is_listed_until_told() {
    let task = |_| Task::new(pending::<()>()).timeout(Duration::from_millis(1));
    ends_listed("timed_out", task, |builder| builder).await;
}

#[tokio::test]
async fn a_skipped_task_is_listed_until_told() {
    let task = |blocking| match blocking {
        true => Task::blocking(|| ()).run_if(|_| false),
        false => Task::new(async {}).run_if(|_| false),
    };
    ends_listed("skipped", task, |builder| {
        builder.on_failure(OnFailure::Stop)
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_task_is_listed_until_told() {
    let told = Told::default();
    let runner = told.runner(|builder| builder.max_running(1));
    let runs = runner.try_add_task(pending::<()>()).unwrap();
    until(|| runner.stats().running == 1).await;
    let waits_for_a_place = runner.try_add_task(async {}).unwrap();
    let (response, tasks) = open_response(&runner);
    let waits_for_its_response = tasks.try_add_task(async {}).unwrap();
    for id in [waits_for_its_response, waits_for_a_place, runs] {
        assert!(runner.cancel(id) && !runner.cancel(id));
    }
    told.each_once(&runner, "aborted", 3).await;
    drop(response);
}

#[tokio::test]
async fn a_task_aborted_by_shutdown_is_listed_until_told() {
    let told = Told::default();
    let runner = told.runner(|builder| builder.max_running(2));
    runner.add_task(pending::<()>());
    let (release, holds) = hold();
    runner.add_task(holds);
    until(|| runner.stats().running == 2).await;
    runner.add_task(async {});
    let (response, tasks) = open_response(&runner);
    tasks.add_task(async {});
    tasks.add_blocking_task(|| ());
    let report = runner.shutdown(Duration::ZERO).await;
    assert_eq!(report.unfinished().len(), 5);
    drop((response, release));
    told.each_once(&runner, "aborted", 5).await;
}

/// A thread looks for the last task that was added, while its end may be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thread_finds_each_task_listed_or_told() {
    let (told, added) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tells = Arc::clone(&told);
    let tell = move |id: TaskId| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(20) {} // an observer takes its time
        tells.store(id.as_u64(), Ordering::SeqCst);
    };
    let builder = Runner::builder().on_task_end(move |report| tell(report.id()));
    let runner = builder.build();
    let looks = {
        let (runner, told, added) = (runner.clone(), Arc::clone(&told), Arc::clone(&added));
        move || {
            let mut missed = 0;
            loop {
                let id = added.load(Ordering::SeqCst);
                if id == u64::MAX {
                    return missed;
                }
                let is_listed = is_listed(&runner, TaskId::from(id));
                missed += usize::from(!is_listed && told.load(Ordering::SeqCst) < id);
            }
        }
    };
    let looker = thread::spawn(looks);
    for _ in 0..500 {
        let id = runner.try_add_task(turns(3)).unwrap();
        added.store(id.as_u64(), Ordering::SeqCst);
        until(|| told.load(Ordering::SeqCst) == id.as_u64()).await;
    }
    added.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(looker.join().unwrap(), 0, "neither listed nor told");
}
