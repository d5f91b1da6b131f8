//! An error or a panic in a task harms neither its siblings nor the runner.

use std::{
    panic::panic_any,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tower_background_tasks::{BackgroundTasks, Runner, Stats, Task};

use crate::support::{Log, PanicsWhenDropped, full, get, respond, soon};

/// Adds tasks around one that goes wrong, and checks that they ran.
async fn siblings_of(add: impl Fn(&BackgroundTasks) + Clone) -> Stats {
    let (runner, log) = (Runner::new(), Log::default());
    for _ in 0..2 {
        let response = respond(&runner, get("/"), |tasks| {
            tasks.add_task(log.task("before"));
            add(&tasks);
            tasks.add_task(log.task("behind"));
            full("hello")
        })
        .await;
        drop(response);
        soon(runner.idle()).await;
    }
    assert_eq!(log.lines(), ["before", "behind", "before", "behind"]);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.completed), (6, 4));
    assert_eq!((stats.pending, stats.running), (0, 0));
    stats
}

#[tokio::test]
async fn a_failing_task_does_not_stop_its_siblings() {
    let stats = siblings_of(|tasks| tasks.add_task(async { "x".parse::<u8>() })).await;
    assert_eq!(stats.failed, 2);
    let stats = siblings_of(|tasks| tasks.add_blocking_task(|| "x".parse::<u8>())).await;
    assert_eq!(stats.failed, 2);
}

#[tokio::test]
async fn a_panicking_task_does_not_stop_its_siblings() {
    let stats = siblings_of(|tasks| tasks.add_task(async { panic!("on purpose") })).await;
    assert_eq!(stats.panicked, 2);
    let stats = siblings_of(|tasks| tasks.add_blocking_task(|| panic!("on purpose"))).await;
    assert_eq!(stats.panicked, 2);
}

#[tokio::test]
async fn a_panic_in_making_the_future_is_contained() {
    let stats = siblings_of(|tasks| {
        tasks.add_task(Task::with_context(|_| {
            if true {
                panic!("on purpose");
            }
            async {}
        }));
    })
    .await;
    assert_eq!(stats.panicked, 2);
}

#[tokio::test]
async fn a_panicking_condition_is_contained() {
    let stats = siblings_of(|tasks| {
        tasks.add_task(Task::new(async {}).run_if(|_| panic!("on purpose")));
    })
    .await;
    assert_eq!(stats.panicked, 2);
}

impl Future for PanicsWhenDropped {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[tokio::test]
async fn a_panicking_destructor_is_contained() {
    let stats = siblings_of(|tasks| tasks.add_task(PanicsWhenDropped)).await;
    assert_eq!(stats.panicked, 2);
    let stats = siblings_of(|tasks| {
        let captured = PanicsWhenDropped;
        tasks.add_blocking_task(move || drop(captured));
    })
    .await;
    assert_eq!(stats.panicked, 2);
    let stats = siblings_of(|tasks| {
        let captured = PanicsWhenDropped;
        tasks.add_task(Task::new(async move { drop(captured) }).run_if(|_| false));
    })
    .await;
    assert_eq!(stats.panicked, 2);
}

#[tokio::test]
async fn a_panic_whose_payload_panics_when_dropped_is_contained() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic_any(Payload);
        }
    }
    let stats = siblings_of(|tasks| tasks.add_task(async { panic_any(Payload) })).await;
    assert_eq!(stats.panicked, 2);
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct PanickingError(PanicsWhenDropped);

impl std::fmt::Display for PanickingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an error with a destructor")
    }
}

impl std::error::Error for PanickingError {}

fn fails_panicking() -> Result<(), PanickingError> {
    Err(PanickingError(PanicsWhenDropped))
}

#[tokio::test]
async fn an_error_that_panics_when_dropped_is_contained() {
    let stats = siblings_of(|tasks| tasks.add_task(async { fails_panicking() })).await;
    assert_eq!(stats.failed, 2);
    let stats = siblings_of(|tasks| tasks.add_blocking_task(fails_panicking)).await;
    assert_eq!(stats.failed, 2);
    let stats = siblings_of(|tasks| {
        let captured = PanicsWhenDropped;
        tasks.add_blocking_task(move || {
            let _captured = &captured;
            fails_panicking()
        });
    })
    .await;
    assert_eq!(stats.panicked + stats.failed, 2);
}

#[test]
fn dropping_a_queue_contains_its_tasks_destructors_even_while_unwinding() {
    let queue = || {
        let tasks = BackgroundTasks::new();
        for _ in 0..100_000 {
            tasks.add_task(async {});
        }
        tasks.add_task(PanicsWhenDropped);
        tasks.add_task(PanicsWhenDropped);
        tasks
    };
    drop(queue());
    let unwinding = std::panic::catch_unwind(|| {
        let _tasks = queue();
        panic!("on purpose: a handler");
    });
    assert!(unwinding.is_err());
}

#[test]
fn debug_of_a_queue_holds_no_lock_while_it_writes() {
    struct Writer(BackgroundTasks);
    impl std::fmt::Write for Writer {
        fn write_str(&mut self, _: &str) -> std::fmt::Result {
            let _ = self.0.len();
            Ok(())
        }
    }
    let tasks = BackgroundTasks::new();
    std::fmt::Write::write_fmt(&mut Writer(tasks.clone()), format_args!("{tasks:?}")).unwrap();
}

/// Ends `count` responses to HTTP/1 requests, each with a task.
fn end_responses(runner: &Runner, count: usize, task: impl Fn() -> Task + Clone) {
    for _ in 0..count {
        let task = task.clone();
        let response = respond(runner, get("/"), move |tasks| {
            tasks.add_task(task());
            full("hello")
        });
        drop(response.now_or_never());
    }
}

/// Of a rush of responses that one worker ends, tasks end while something holds that worker: another
/// task, or the task of the runtime that ends the responses.
async fn a_rush_ends_while_a_worker_is_held(by_a_task: bool) {
    let runner = Runner::new();
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let hold = move || {
        let _ = released.lock().unwrap().recv();
    };
    let ending = runner.clone();
    let (other_starts, other_has_started) = oneshot::channel();
    let (resume, resumes) = mpsc::channel::<()>();
    tokio::spawn(async move {
        other_starts.send(()).unwrap();
        let _ = resumes.recv();
    });
    // The other worker takes nothing yet. (It would keep a task that it wakes.)
    other_has_started.await.unwrap();
    let held = tokio::spawn(async move {
        // These never end.
        end_responses(&ending, 64, || Task::new(std::future::pending::<()>()));
        if by_a_task {
            end_responses(&ending, 1, || {
                let hold = hold.clone();
                Task::new(async move { hold() })
            });
        }
        end_responses(&ending, 101, || Task::new(async {}));
        drop(resume);
        if !by_a_task {
            hold();
        }
    });
    soon(async {
        // The last one may be next on the worker that is held.
        while runner.stats().completed < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(release);
    held.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_holding_its_worker_keeps_no_other_requests_tasks_waiting() {
    a_rush_ends_while_a_worker_is_held(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_responses_then_holding_the_worker_keeps_no_tasks_waiting() {
    a_rush_ends_while_a_worker_is_held(false).await;
}
