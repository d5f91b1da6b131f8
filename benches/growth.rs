//! How does it grow with what waits? What a task costs with 10³ to 10⁶ of them on one response, or
//! waiting for one of 64 places; and a response with 10³ to 10⁵ of them open; in both orders.
//!
//!     cargo bench --bench growth
//!
//! The sizes take turns, round by round; each figure is the median over the rounds. A column that
//! grows with the size would be a cost that is not in proportion.

#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::time::{Duration, Instant};

use common::{is_smoke, median, rounds};
use http::Response;
use tokio::runtime::{Builder, Runtime};
use tower_background_tasks::{BackgroundTasks, Order, ResponseBody, Runner};

const ORDERS: [(Order, &str); 2] = [
    (Order::Sequential, "one after another"),
    (Order::Concurrent, "side by side"),
];

/// One task's share of each step, in nanoseconds; and how long the end took in all, in microseconds.
struct Steps {
    add: f64,
    run: f64,
    /// `None` where no response ends.
    end: Option<f64>,
}

fn nanos_each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let output = f();
    (output, begun.elapsed())
}

fn attach(runner: &Runner, tasks: BackgroundTasks) -> Response<ResponseBody<String>> {
    runner.attach(Response::new(String::new()), tasks)
}

/// `tasks` tasks on one response, which then ends.
fn one_response(runtime: &Runtime, order: Order, tasks: usize) -> Steps {
    let runner = Runner::builder().order(order).build();
    runtime.block_on(async {
        let queue = BackgroundTasks::new();
        let response = attach(&runner, queue.clone());
        let add = || (0..tasks).for_each(|_| queue.add_task(async {}));
        let ((), add) = timed(add);
        let ((), end) = timed(|| drop(response));
        let begun = Instant::now();
        runner.idle().await;
        assert_eq!(runner.stats().completed, tasks as u64);
        Steps {
            add: nanos_each(add, tasks),
            run: nanos_each(begun.elapsed(), tasks),
            end: Some(end.as_secs_f64() * 1e6),
        }
    })
}

/// `responses` responses that are open at once, with a task each.
fn open_responses(runtime: &Runtime, order: Order, responses: usize) -> Steps {
    let runner = Runner::builder().order(order).build();
    runtime.block_on(async {
        let open = || {
            let respond = |_| {
                let queue = BackgroundTasks::new();
                queue.add_task(async {});
                attach(&runner, queue)
            };
            (0..responses).map(respond).collect::<Vec<_>>()
        };
        let (open, add) = timed(open);
        let ((), end) = timed(|| drop(open));
        let begun = Instant::now();
        runner.idle().await;
        assert_eq!(runner.stats().completed, responses as u64);
        Steps {
            add: nanos_each(add, responses),
            run: nanos_each(begun.elapsed(), responses),
            end: Some(end.as_secs_f64() * 1e6 / responses as f64),
        }
    })
}

/// `tasks` tasks without a response, of which 64 may run at once. Nothing ends.
fn places(runtime: &Runtime, order: Order, tasks: usize) -> Steps {
    let builder = Runner::builder().order(order);
    let runner = builder.max_running(64).build();
    runtime.block_on(async {
        let ((), add) = timed(|| (0..tasks).for_each(|_| runner.add_task(async {})));
        let begun = Instant::now();
        runner.idle().await;
        assert_eq!(runner.stats().completed, tasks as u64);
        Steps {
            add: nanos_each(add, tasks),
            run: nanos_each(begun.elapsed(), tasks),
            end: None,
        }
    })
}

fn table(
    what: &str,
    sizes: &[usize],
    measure: impl Fn(&Runtime, Order, usize) -> Steps,
    end: &str,
) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for (order, name) in ORDERS {
        println!("\n{what}, tasks {name}");
        println!(
            "{:>12} {:>12} {:>12} {end:>24}",
            "", "ns to add", "ns to run"
        );
        let mut samples: Vec<_> = sizes.iter().map(|&size| (size, Vec::new())).collect();
        for _ in 0..rounds(5) {
            for (size, steps) in &mut samples {
                steps.push(measure(&runtime, order, *size));
            }
        }
        for (size, steps) in samples {
            let add = median(steps.iter().map(|steps| steps.add).collect());
            let run = median(steps.iter().map(|steps| steps.run).collect());
            let ends: Option<Vec<_>> = steps.iter().map(|steps| steps.end).collect();
            let end = ends.map(|ends| format!("{:.2}", median(ends)));
            let end = end.unwrap_or_default();
            println!("{size:>12} {add:>12.0} {run:>12.0} {end:>24}");
        }
    }
}

fn main() {
    let sizes = |largest: usize| -> Vec<usize> {
        let largest = if is_smoke() { 10_000 } else { largest };
        [1_000, 10_000, 100_000, 1_000_000]
            .into_iter()
            .filter(|size| *size <= largest)
            .collect()
    };
    let end = "us to end the response";
    table(
        "tasks of one response",
        &sizes(1_000_000),
        one_response,
        end,
    );
    table("tasks for 64 places", &sizes(1_000_000), places, "");
    let end = "us to end a response";
    table(
        "responses open at once",
        &sizes(100_000),
        open_responses,
        end,
    );
}
