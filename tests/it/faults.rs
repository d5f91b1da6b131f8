//! Faults of the first design. A test goes to the file of its promise when that holds.
//!
//! Those with a comment "guard" passed on the first design as well.

use std::{
    future::{pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use http::Response;
use http_body_util::Full;
use tokio::{
    runtime::{Builder, Runtime},
    task::{spawn_blocking, yield_now},
    time::advance,
};
use tower_background_tasks::{
    BackgroundTasks, OnFailure, Order, ResponseBody, Runner, RunnerBuilder, Task, TaskId, TaskInfo,
    TaskState,
};

use crate::support::{Log, block_on, full, get, respond, soon};

const SECOND: Duration = Duration::from_secs(1);

/// In turn one of many threads and one of a single thread.
fn runtime(number: usize) -> Runtime {
    let mut builder = match number % 2 {
        0 => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// A response whose end releases what is then added to the queue.
fn open_response(runner: &Runner) -> (Response<ResponseBody<Full<bytes::Bytes>>>, BackgroundTasks) {
    let tasks = BackgroundTasks::new();
    (runner.attach(full("hello"), tasks.clone()), tasks)
}

/// Waits without a timer, so that a paused clock stays where it is.
async fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < 20 * SECOND, "did not happen");
        yield_now().await;
    }
}

async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

fn is_listed(runner: &Runner, id: TaskId) -> bool {
    runner.tasks().iter().any(|task| task.id() == id)
}

/// Tests that hold this run one at a time.
fn alone(these: &'static Mutex<()>) -> MutexGuard<'static, ()> {
    these.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by tests that measure time, or keep the processor busy.
static MEASURES: Mutex<()> = Mutex::new(());

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

// 1. Any runtime.

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

// 2. Stale wakers.

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

// 3. A busy blocking pool.

const THREADS: usize = 8;

fn busy_pool() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(1).max_blocking_threads(THREADS);
    builder.enable_all().build().unwrap()
}

/// The p50 of when 100 pieces of 20 ms begin, sent to a pool that is busy for 80 ms. Others' work
/// is sent right behind them, and is not to begin before them.
fn p50_of_begins(send: impl Fn(Box<dyn FnOnce() + Send>)) -> Duration {
    let (runtime, (begun, begins)) = (busy_pool(), mpsc::channel());
    let _entered = runtime.enter();
    for _ in 0..THREADS {
        spawn_blocking(|| thread::sleep(Duration::from_millis(80)));
    }
    let sent = Instant::now();
    for _ in 0..100 {
        let begun = begun.clone();
        send(Box::new(move || {
            begun.send(sent.elapsed()).unwrap();
            thread::sleep(Duration::from_millis(20));
        }));
    }
    for _ in 0..4 * THREADS {
        spawn_blocking(|| thread::sleep(Duration::from_millis(20)));
    }
    median(begins.iter().take(100).collect())
}

#[test]
fn a_busy_pool_serves_us_as_soon_as_spawn_blocking() {
    let _alone = alone(&MEASURES);
    let rounds = (0..3).map(|_| {
        let runner = Runner::new();
        let ours = p50_of_begins(|task| {
            let (response, tasks) = open_response(&runner);
            tasks.add_blocking_task(task);
            drop(response);
        });
        let plain = p50_of_begins(|task| drop(spawn_blocking(task)));
        (ours.as_secs_f64() / plain.as_secs_f64(), ours, plain)
    });
    let rounds: Vec<_> = rounds.collect();
    let best = rounds.iter().map(|(ratio, ..)| *ratio);
    assert!(best.fold(f64::MAX, f64::min) <= 1.15, "{rounds:?}");
}

// 4. Ending a response.

/// The time that the end of a response with `count` tasks takes.
async fn time_to_end(order: Order, sync_first: bool, count: usize) -> Duration {
    let runner = Runner::builder().order(order).build();
    let (response, tasks) = open_response(&runner);
    for number in 0..count {
        match (number % 2 == 0) == sync_first {
            true => tasks.add_blocking_task(|| ()),
            false => tasks.add_task(async {}),
        }
    }
    let begun = Instant::now();
    drop(response);
    let took = begun.elapsed();
    let _ = runner.shutdown(Duration::ZERO).await; // it need not run them all
    soon(runner.idle()).await;
    let stats = runner.stats();
    assert_eq!(stats.added, stats.completed + stats.aborted);
    took
}

/// The least of several times: others want the processor, too.
async fn least_time_to_end(order: Order, sync_first: bool, count: usize, times: usize) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..times {
        least = least.min(time_to_end(order, sync_first, count).await);
    }
    least
}

#[tokio::main(flavor = "current_thread")]
async fn ends_in_a_moment(order: Order, count: usize, times: usize) {
    for sync_first in [true, false] {
        let took = least_time_to_end(order, sync_first, count, times).await;
        let few = least_time_to_end(order, sync_first, 1_000, 5).await;
        let told = format!("sync first: {sync_first}; {count}: {took:?}, 1,000: {few:?}");
        assert!(took < Duration::from_millis(1), "{told}");
        assert!(took < 10 * few + Duration::from_micros(100), "{told}");
    }
}

#[test]
fn ending_a_response_with_100_000_sequential_tasks_is_quick() {
    let _alone = alone(&MEASURES);
    ends_in_a_moment(Order::Sequential, 100_000, 5);
}

#[test]
fn ending_a_response_with_100_000_concurrent_tasks_is_quick() {
    let _alone = alone(&MEASURES);
    ends_in_a_moment(Order::Concurrent, 100_000, 5);
}

#[test]
fn ending_a_response_with_a_million_sequential_tasks_is_quick() {
    let _alone = alone(&MEASURES);
    ends_in_a_moment(Order::Sequential, 1_000_000, 3);
}

#[test]
fn ending_a_response_with_a_million_concurrent_tasks_is_quick() {
    let _alone = alone(&MEASURES);
    ends_in_a_moment(Order::Concurrent, 1_000_000, 3);
}

// 5. What times mean.

/// A subscriber in one test is seen in others: one such test at a time.
static ONE_SUBSCRIBER: Mutex<()> = Mutex::new(());

/// Calls `test` with a runner that nobody watches, with an observer, and with an observer.
fn with_each_watcher(test: &impl AsyncFn(Runner, &str)) {
    let _alone = alone(&ONE_SUBSCRIBER);
    let paused = |watcher, runner| {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(test(runner, watcher));
    };
    paused("nobody", Runner::new());
    paused("observer", Runner::builder().on_task_end(|_| ()).build());
}

/// Moves the paused clock within a poll.
fn pass(time: Duration) {
    let _ = advance(time).now_or_never();
}

fn only(runner: &Runner) -> TaskInfo {
    let [task] = &runner.tasks()[..] else {
        panic!("not one task: {:?}", runner.tasks());
    };
    task.clone()
}

#[test]
fn age_counts_from_when_the_task_was_added() {
    with_each_watcher(&async |runner, watcher| {
        let response = respond(&runner, get("/"), |tasks| {
            pass(5 * SECOND); // the handler takes its time
            tasks.add_task(pending::<()>());
            full("hello")
        })
        .await;
        pass(SECOND);
        assert_eq!(only(&runner).age(), SECOND, "{watcher}");
        drop(response);
        turns(10).await;
        pass(SECOND);
        assert_eq!(only(&runner).age(), 2 * SECOND, "{watcher}, running");
    });
}

#[test]
fn age_of_a_task_added_while_streaming_counts_from_then() {
    with_each_watcher(&async |runner, watcher| {
        let (keep, kept) = mpsc::channel();
        let response = respond(&runner, get("/"), |tasks| {
            keep.send(tasks).unwrap();
            full("hello")
        })
        .await;
        pass(5 * SECOND); // the body takes its time
        kept.recv().unwrap().add_task(pending::<()>());
        pass(SECOND);
        assert_eq!(only(&runner).age(), SECOND, "{watcher}");
        drop(response);
    });
}

#[test]
fn running_for_counts_from_when_the_task_began() {
    with_each_watcher(&async |runner, watcher| {
        let (response, tasks) = open_response(&runner);
        tasks.add_task(pending::<()>());
        drop(response);
        pass(5 * SECOND); // the worker takes its time
        turns(10).await;
        pass(SECOND);
        assert_eq!(only(&runner).running_for(), Some(SECOND), "{watcher}");
    });
}

#[test]
fn running_for_leaves_out_the_tasks_before_it() {
    with_each_watcher(&async |runner, watcher| {
        let (response, tasks) = open_response(&runner);
        tasks.add_task(async { pass(5 * SECOND) });
        tasks.add_task(pending::<()>());
        drop(response);
        turns(10).await;
        pass(SECOND);
        assert_eq!(only(&runner).running_for(), Some(SECOND), "{watcher}");
    });
}

// 6 and 11. No panic of ours, contained or not.

static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Counts the panics of threads that have a name of [`panics_in`].
fn install_the_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            shown(panic);
            let (text, current) = (panic.to_string(), thread::current());
            let name = current.name().unwrap_or_default().to_owned();
            // That there is no timer, or no more, Tokio tells by nothing but a panic.
            let is_tokios = ["timers are disabled", "it is being shutdown"];
            let is_ours = !is_tokios.iter().any(|tokios| text.contains(tokios));
            if name.starts_with(WATCHED) && is_ours && !text.contains("on purpose") {
                PANICS.lock().unwrap().push((name, text));
            }
        }));
    });
}

const WATCHED: &str = "no panic: ";

/// Runs `test` on a thread of that name, which its runtimes' threads have too, and gives what has
/// panicked on any of them.
fn panics_in(name: &str, test: impl FnOnce(&str) + Send + 'static) -> Vec<String> {
    install_the_hook();
    let name = format!("{WATCHED}{name}");
    let own = name.clone();
    let thread = thread::Builder::new().name(name.clone());
    let ended = thread.spawn(move || test(&own)).unwrap().join();
    let mut panics = PANICS.lock().unwrap();
    let (ours, others) = panics.drain(..).partition(|(thread, _)| *thread == name);
    *panics = others;
    drop(panics);
    let texts: Vec<_> = Vec::into_iter(ours).map(|(_, text)| text).collect();
    assert!(ended.is_ok(), "{texts:?}");
    texts
}

fn no_panic_in(name: &str, test: impl FnOnce(&str) + Send + 'static) {
    let panics = panics_in(name, test);
    assert!(panics.is_empty(), "{}: {}", panics.len(), panics[0]);
}

/// Runtimes whose threads are watched: of one thread, and of two.
fn watched(name: &str, has_timer: bool) -> [Runtime; 2] {
    let one = Builder::new_current_thread();
    let mut two = Builder::new_multi_thread();
    two.worker_threads(2);
    [one, two].map(|mut builder| {
        builder.thread_name(name);
        if has_timer {
            builder.enable_time();
        }
        builder.build().unwrap()
    })
}

/// Waits on the system's clock: `soon` needs a timer.
fn wait_for(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < 20 * SECOND, "did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Every task has ended, in whichever way.
fn is_quiet(runner: &Runner) -> bool {
    let stats = runner.stats();
    (stats.pending, stats.running) == (0, 0)
}

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

#[test] // guard
fn the_hook_counts_contained_panics() {
    let panics = panics_in("the hook", |name| {
        let [runtime, _] = watched(name, false);
        let caught = runtime.block_on(async { catch_unwind(|| panic!("caught")) });
        assert!(caught.is_err());
        let caught = catch_unwind(|| panic!("on purpose"));
        assert!(caught.is_err());
    });
    assert_eq!(panics.len(), 1);
}

#[test]
fn shutdown_without_a_timer_keeps_its_grace_and_panics_nowhere() {
    no_panic_in("shutdown, no timer", |name| {
        for runtime in watched(name, false) {
            let runner = Runner::new();
            runtime.block_on(shuts_down_after_its_grace(&runner));
            assert_eq!((runner.stats().added, runner.stats().aborted), (2, 2));
        }
    });
}

#[test] // guard
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
fn shutdown_on_a_gone_runtime_keeps_its_grace_without_panic() {
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
fn running_by_hand_on_a_gone_runtime_panics_nowhere() {
    no_panic_in("by hand, runtime gone", |name| {
        with_an_entered_runtime_gone(name, false, || {
            let tasks = BackgroundTasks::new();
            tasks.add_task(Task::new(turns(3)).timeout(SECOND));
            tasks.add_task(Task::blocking(|| ()).timeout(SECOND));
            tasks.add_blocking_task(|| ());
            assert_eq!(block_on(tasks.run()).len(), 3);
        });
    });
}

#[test]
fn a_timeout_without_a_timer_panics_nowhere() {
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
                until(|| is_quiet(&runner)).await;
            });
            let stats = runner.stats();
            assert_eq!(stats.added, stats.completed + stats.failed);
        }
    });
}

#[test]
fn running_by_hand_without_a_timer_panics_nowhere() {
    no_panic_in("by hand, no timer", |name| {
        for runtime in watched(name, false) {
            let tasks = BackgroundTasks::new();
            tasks.add_task(Task::new(async {}).timeout(SECOND));
            tasks.add_task(Task::blocking(|| ()).timeout(SECOND));
            assert_eq!(runtime.block_on(tasks.run()).len(), 2);
        }
    });
}

/// Whatever may be done with a runner and a queue: everything that is added ends.
fn uses_everything(runner: &Runner) {
    let (response, tasks) = open_response(runner);
    tasks.add_task(Task::new(async {}).timeout(SECOND));
    tasks.add_task(Task::blocking(|| ()).timeout(SECOND));
    tasks.add_blocking_task(|| ());
    drop(response);
    tasks.add_task(async {});
    tasks.add_blocking_task(|| ());
    runner.add_task(async {});
    runner.add_blocking_task(|| ());
    let _ = (
        runner.tasks(),
        runner.stats(),
        runner.cancel(TaskId::from(1)),
    );
}

#[test] // guard
fn without_any_runtime_a_hook_sees_no_panic() {
    no_panic_in("no runtime", |_| {
        let runner = Runner::builder().max_running(1).max_blocking(1).build();
        for runner in [Runner::new(), runner] {
            uses_everything(&runner);
            block_on(runner.idle());
            assert!(is_quiet(&runner));
            let by_hand = BackgroundTasks::new();
            by_hand.add_task(Task::new(async {}).timeout(SECOND));
            by_hand.add_blocking_task(|| ());
            assert_eq!(block_on(by_hand.run()).len(), 2);
            assert!(block_on(runner.shutdown(SECOND)).is_clean());
            uses_everything(&runner);
        }
    });
}

#[test] // guard
fn with_its_runtime_gone_a_hook_sees_no_panic() {
    no_panic_in("runtime gone", |name| {
        for runtime in watched(name, true) {
            let runner = Runner::new();
            let response = runtime.block_on(async {
                uses_everything(&runner);
                let (response, tasks) = open_response(&runner);
                tasks.add_task(Task::new(async {}).timeout(SECOND));
                tasks.add_blocking_task(|| ());
                response
            });
            drop(runtime);
            drop(response);
            uses_everything(&runner);
            wait_for(|| is_quiet(&runner));
        }
    });
}

/// Does something when it is dropped.
struct AtDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test] // guard
fn in_a_tasks_destructor_a_hook_sees_no_panic() {
    no_panic_in("in a task's drop", |name| {
        for runtime in watched(name, true) {
            let runner = Runner::new();
            let own = runner.clone();
            runtime.block_on(async {
                let last = AtDrop(move || uses_everything(&own));
                runner.add_task(async move {
                    let _last = last;
                    pending::<()>().await;
                });
                until(|| runner.stats().running == 1).await;
            });
            drop(runtime); // drops the task
            wait_for(|| is_quiet(&runner));
        }
    });
}

#[test] // guard
fn while_unwinding_a_hook_sees_no_other_panic() {
    no_panic_in("unwinding", |name| {
        for (number, runtime) in watched(name, true).into_iter().enumerate() {
            let runner = Runner::new();
            let entered = (number == 0).then(|| runtime.enter());
            let response = open_response(&runner);
            let own = runner.clone();
            let unwinding = catch_unwind(AssertUnwindSafe(move || {
                let _last = AtDrop(move || uses_everything(&own));
                response.1.add_task(Task::new(async {}).timeout(SECOND));
                response.1.add_blocking_task(|| ());
                let _response = response;
                panic!("on purpose: something else panics");
            }));
            assert!(unwinding.is_err());
            drop(entered);
            drop(runtime);
            wait_for(|| is_quiet(&runner));
        }
    });
}

#[test] // guard
fn with_the_longest_timeouts_a_hook_sees_no_panic() {
    no_panic_in("the longest timeouts", |name| {
        for runtime in watched(name, true) {
            let runner = Runner::builder().task_timeout(Duration::MAX).build();
            let (response, tasks) = open_response(&runner);
            tasks.add_task(Task::new(turns(3)).timeout(Duration::MAX));
            tasks.add_task(Task::blocking(|| ()).timeout(Duration::MAX));
            tasks.add_task(turns(3));
            tasks.add_blocking_task(|| ());
            let report = runtime.block_on(async {
                drop(response);
                soon(runner.shutdown(Duration::MAX)).await
            });
            assert!(report.is_clean());
            assert_eq!(runner.stats().completed, 4);
        }
    });
}

// 7. A cancelled task that waits for a place.

/// A blocking task that takes its place until what comes back is dropped.
fn hold() -> (mpsc::Sender<()>, Task) {
    let (release, held) = mpsc::channel::<()>();
    (
        release,
        Task::blocking(move || held.recv().unwrap_or_default()),
    )
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
    behind_a_busy_pool(|captured| blocking_task(captured).timeout(60 * SECOND));
}

// 8. What a peak leaves behind.

const PEAK: usize = 200_000;

/// The time of 100 looks at the one task that is left.
fn time_to_look(runner: &Runner) -> Duration {
    let looks = || {
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(runner.tasks().len(), 1);
        }
        begun.elapsed()
    };
    5 * median((0..5).map(|_| looks()).collect())
}

/// A peak of tasks, of which the one with that number is left.
async fn after_a_peak(is_left: usize, add: impl Fn(Task)) {
    for number in 0..PEAK {
        add(match number == is_left {
            true => Task::new(pending::<()>()),
            false => Task::new(async {}),
        });
    }
}

async fn looks_as_quickly_as_a_fresh_one(runner: &Runner) {
    until(|| runner.stats().completed == PEAK as u64 - 1).await;
    let fresh = Runner::new();
    fresh.add_task(pending::<()>());
    until(|| fresh.stats().running == 1).await;
    let (ours, usual) = (time_to_look(runner), time_to_look(&fresh));
    assert!(ours < 20 * usual, "{ours:?}, a fresh one {usual:?}");
}

#[test]
fn with_the_last_of_a_peak_left_listing_is_cheap() {
    let _alone = alone(&MEASURES);
    runtime(1).block_on(async {
        let runner = Runner::new();
        after_a_peak(PEAK - 1, |task| runner.add_task(task)).await;
        looks_as_quickly_as_a_fresh_one(&runner).await;
    });
}

#[test]
fn with_the_first_of_a_peak_left_listing_is_cheap() {
    let _alone = alone(&MEASURES);
    runtime(1).block_on(async {
        let runner = Runner::new();
        after_a_peak(0, |task| runner.add_task(task)).await;
        looks_as_quickly_as_a_fresh_one(&runner).await;
    });
}

#[test]
fn after_a_peak_of_one_request_listing_is_cheap() {
    let _alone = alone(&MEASURES);
    runtime(1).block_on(async {
        for is_left in [0, PEAK - 1] {
            let runner = Runner::builder().order(Order::Concurrent).build();
            let (response, tasks) = open_response(&runner);
            after_a_peak(is_left, |task| tasks.add_task(task)).await;
            drop(response);
            looks_as_quickly_as_a_fresh_one(&runner).await;
        }
    });
}

// 9. `pending` within its limit.

#[test]
fn pending_never_reads_above_max_pending() {
    const LIMIT: u64 = 4;
    let _alone = alone(&MEASURES);
    let (runtime, stop) = (runtime(0), Arc::new(AtomicBool::new(false)));
    let runner = Runner::builder().max_pending(LIMIT as usize).build();
    let adders = [(); 2].map(|()| {
        let (runner, stop) = (runner.clone(), Arc::clone(&stop));
        let handle = runtime.handle().clone();
        thread::spawn(move || {
            let _entered = handle.enter();
            while !stop.load(Ordering::Relaxed) {
                let _ = runner.try_add_task(async {});
            }
        })
    });
    let (begun, mut most) = (Instant::now(), 0);
    while begun.elapsed() < SECOND && most <= LIMIT {
        most = most.max(runner.stats().pending);
    }
    stop.store(true, Ordering::Relaxed);
    for adder in adders {
        adder.join().unwrap();
    }
    runtime.block_on(async { soon(runner.idle()).await });
    assert!(runner.stats().completed > 0);
    assert!(most <= LIMIT, "{most} of {LIMIT}");
}

// 10. Listed until the end is told.

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

    /// So many tasks have ended in this way, each told once, listed until then and not afterwards.
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
    for _ in 0..5_000 {
        let id = runner.try_add_task(turns(3)).unwrap();
        added.store(id.as_u64(), Ordering::SeqCst);
        until(|| told.load(Ordering::SeqCst) == id.as_u64()).await;
    }
    added.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(looker.join().unwrap(), 0, "neither listed nor told");
}
