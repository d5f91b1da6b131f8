//! What must stay cheap: ending a response, getting a blocking thread, listing the tasks.

use std::{
    future::pending,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::spawn_blocking,
};
use tower_background_tasks::{Order, Runner, Task};

use crate::support::{MEASURES, open_response, soon, until};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Measures until a round is good: others want the processor, too.
fn one_of_five_is_good(round: impl Fn() -> (bool, String)) {
    let mut told = Vec::new();
    for _ in 0..5 {
        let (is_good, what) = round();
        if is_good {
            return;
        }
        told.push(what);
    }
    panic!("{told:#?}");
}

/// The time that the end of a response with `count` tasks takes. None of them begins meanwhile: the runtime's one thread ends
/// the response, and its one blocking thread is taken.
fn time_to_end(order: Order, sync_first: bool, count: usize) -> Duration {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let (release, held) = mpsc::channel::<()>();
    runtime.spawn_blocking(move || held.recv());
    let runner = Runner::builder().order(order).build();
    let (response, tasks) = open_response(&runner);
    for number in 0..count {
        match (number % 2 == 0) == sync_first {
            true => tasks.add_blocking_task(|| ()),
            false => tasks.add_task(async {}),
        }
    }
    runtime.block_on(async {
        let begun = Instant::now();
        drop(response);
        let took = begun.elapsed();
        drop(release);
        let _ = runner.shutdown(Duration::ZERO).await; // it need not run them all
        soon(runner.idle()).await;
        let stats = runner.stats();
        assert_eq!(stats.added, stats.completed + stats.aborted);
        took
    })
}

fn ends_in_a_moment(order: Order, sync_first: bool, count: usize) {
    one_of_five_is_good(|| {
        let few = (0..5).map(|_| time_to_end(order, sync_first, 1_000));
        let few = median(few.collect());
        let took = time_to_end(order, sync_first, count);
        let is_good =
            took < Duration::from_millis(1) && took < 10 * few + Duration::from_micros(100);
        (is_good, format!("{count}: {took:?}, 1,000: {few:?}"))
    });
}

#[test]
fn ending_a_response_is_quick_whatever_its_first_task() {
    let _alone = MEASURES.blocking_lock();
    for order in [Order::Sequential, Order::Concurrent] {
        for sync_first in [true, false] {
            ends_in_a_moment(order, sync_first, 30_000);
        }
    }
}

#[test]
fn ending_a_response_with_300_000_sequential_tasks_is_quick() {
    let _alone = MEASURES.blocking_lock();
    ends_in_a_moment(Order::Sequential, false, 300_000);
}

#[test]
fn ending_a_response_with_300_000_concurrent_tasks_is_quick() {
    let _alone = MEASURES.blocking_lock();
    ends_in_a_moment(Order::Concurrent, false, 300_000);
}

const THREADS: usize = 8;

fn busy_pool() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(1).max_blocking_threads(THREADS);
    builder.enable_all().build().unwrap()
}

/// The p50 of when 100 pieces of 20 ms begin, sent to a pool that is busy for 80 ms. Others' work is sent right behind them, and
/// is not to begin before them.
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
    let _alone = MEASURES.blocking_lock();
    one_of_five_is_good(|| {
        let runner = Runner::new();
        let ours = p50_of_begins(|task| {
            let (response, tasks) = open_response(&runner);
            tasks.add_blocking_task(task);
            drop(response);
        });
        let plain = p50_of_begins(|task| drop(spawn_blocking(task)));
        let is_good = ours.as_secs_f64() <= 1.15 * plain.as_secs_f64();
        (is_good, format!("{ours:?}, spawn_blocking {plain:?}"))
    });
}

const PEAK: usize = 20_000;

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
fn add_a_peak(is_left: usize, add: impl Fn(Task)) {
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

#[tokio::test]
async fn with_one_of_a_peak_left_listing_is_cheap() {
    let _alone = MEASURES.lock().await;
    for is_left in [0, PEAK - 1] {
        let runner = Runner::new();
        add_a_peak(is_left, |task| runner.add_task(task));
        looks_as_quickly_as_a_fresh_one(&runner).await;
    }
}

#[tokio::test]
async fn after_a_peak_of_one_request_listing_is_cheap() {
    let _alone = MEASURES.lock().await;
    for is_left in [0, PEAK - 1] {
        let runner = Runner::builder().order(Order::Concurrent).build();
        let (response, tasks) = open_response(&runner);
        add_a_peak(is_left, |task| tasks.add_task(task));
        drop(response);
        looks_as_quickly_as_a_fresh_one(&runner).await;
    }
}
