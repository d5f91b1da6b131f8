//! Wakers that are bad, or stale: they harm nobody, and poll nobody.

use std::{
    future::{pending, poll_fn},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use tower_background_tasks::{BackgroundTasks, Runner, Task, TaskEnd};

use crate::support::{Log, full, open_response, soon, turns, until};

/// A waker that panics, and asks about `tasks` when it is dropped.
struct BadWaker(BackgroundTasks);

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        panic!("on purpose: a waker");
    }
}

impl Drop for BadWaker {
    fn drop(&mut self) {
        let _ = self.0.len();
    }
}

#[tokio::test]
async fn a_bad_waker_is_contained_and_dropped_outside_of_locks() {
    let runner = Runner::new();
    let tasks = BackgroundTasks::new();
    let _response = runner.attach(full("hello"), tasks.clone());
    for _ in 0..3 {
        tasks.add_task(pending::<()>());
    }
    let mut by_hand = Box::pin(tasks.run());
    for _ in 0..3 {
        let waker = Arc::new(BadWaker(tasks.clone())).into();
        assert!(
            by_hand
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    let report = runner.shutdown(Duration::from_millis(1)).await;
    assert_eq!(report.unfinished().len(), 3);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.aborted), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn bad_waker_keeps_nobody_from_hearing_of_a_shutdown() {
    let runner = Runner::new();
    let (tell, contexts) = mpsc::channel();
    runner.add_task(Task::with_context(async move |cx| tell.send(cx).unwrap()));
    soon(runner.idle()).await;
    let cx = contexts.recv().unwrap();

    let bad = Arc::new(BadWaker(BackgroundTasks::new())).into();
    let mut is_told = Box::pin(cx.shutting_down());
    let mut is_idle = Box::pin(runner.idle());
    runner.add_task(Task::with_context(
        async |cx| cx.shutting_down().await, // behind the bad one
    ));
    for _ in 0..3 {
        let mut cx = Context::from_waker(&bad);
        assert!(is_told.as_mut().poll(&mut cx).is_pending());
        assert!(is_idle.as_mut().poll(&mut cx).is_pending());
        tokio::task::yield_now().await;
    }
    let other = tokio::spawn({
        let runner = runner.clone();
        async move { runner.idle().await }
    });
    tokio::task::yield_now().await;

    let report = runner.shutdown(Duration::from_secs(1)).await;
    assert!(report.is_clean(), "{report}");
    soon(other).await.unwrap();
    assert!(is_told.now_or_never().is_some());
    assert!(is_idle.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn bad_waker_does_not_stop_the_timer_of_the_grace() {
    let runner = Runner::new();
    runner.add_task(pending::<()>());
    let mut shutdown = Box::pin(runner.shutdown(Duration::from_millis(1)));
    let bad = Arc::new(BadWaker(BackgroundTasks::new())).into();
    assert!(
        shutdown
            .as_mut()
            .poll(&mut Context::from_waker(&bad))
            .is_pending()
    );
    tokio::time::sleep(Duration::from_millis(5)).await; // the runtime's timer wakes both
    let report = shutdown.now_or_never().unwrap();
    assert_eq!(report.unfinished().len(), 1);
}

#[tokio::test]
async fn bad_waker_keeps_no_blocking_task_from_running_by_hand() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    tasks.add_blocking_task({
        let log = log.clone();
        move || log.write("ran")
    });
    let mut by_hand = Box::pin(tasks.run());
    let bad = Arc::new(BadWaker(tasks.clone())).into();
    let mut cx = Context::from_waker(&bad);
    let polled = poll_fn(|other| {
        other.waker().wake_by_ref(); // the bad one will not
        by_hand.as_mut().poll(&mut cx)
    });
    let ends = soon(polled).await;
    assert!(matches!(ends[..], [TaskEnd::Completed]), "{ends:?}");
    assert_eq!(log.lines(), ["ran"]);
}

struct WakerThatPanicsWhenDropped;

impl Wake for WakerThatPanicsWhenDropped {
    fn wake(self: Arc<Self>) {}
}

impl Drop for WakerThatPanicsWhenDropped {
    fn drop(&mut self) {
        panic!("on purpose: a waker's destructor");
    }
}

#[test]
fn dropping_a_run_contains_a_waker_that_panics_when_dropped() {
    let tasks = BackgroundTasks::new();
    tasks.add_task(pending::<()>());
    let mut by_hand = Box::pin(tasks.run());
    for _ in 0..2 {
        let waker = Waker::from(Arc::new(WakerThatPanicsWhenDropped));
        let polled = by_hand.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop(waker); // not the last of its handles
    }
    drop(by_hand);
    assert!(tasks.is_empty());
}

/// The waker that the only task of a request was polled with; the task has ended.
async fn stale_waker(runner: &Runner, is_pending_first: bool) -> Waker {
    let kept = Arc::new(Mutex::new(None::<Waker>));
    let (response, tasks) = open_response(runner);
    let keeps = Arc::clone(&kept);
    tasks.add_task(poll_fn(move |cx| {
        let old = keeps.lock().unwrap().replace(cx.waker().clone());
        if is_pending_first && old.is_none() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }));
    drop((response, tasks));
    soon(runner.idle()).await;
    kept.lock().unwrap().take().unwrap()
}

/// How often a pending task is polled while another request's stale waker is woken 1,000 times.
async fn polls_by_a_stale_waker(is_pending_first: bool) -> usize {
    let (runner, polls) = (Runner::new(), Arc::new(AtomicUsize::new(0)));
    let stale = stale_waker(&runner, is_pending_first).await;
    let (response, tasks) = open_response(&runner);
    let counts = Arc::clone(&polls);
    tasks.add_task(poll_fn(move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        Poll::<()>::Pending
    }));
    drop(response);
    until(|| polls.load(Ordering::SeqCst) > 0).await;
    for _ in 0..1_000 {
        stale.wake_by_ref();
        turns(3).await;
    }
    polls.load(Ordering::SeqCst)
}

#[tokio::test]
async fn an_ended_tasks_waker_polls_no_task_of_another_request() {
    for is_pending_first in [false, true] {
        let polls = polls_by_a_stale_waker(is_pending_first).await;
        assert_eq!(polls, 1, "pending before it ended: {is_pending_first}");
    }
}
