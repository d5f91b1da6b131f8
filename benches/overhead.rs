//! What the layer and its tasks cost, beside the ways they replace: the budget's times. Its allocations are in `memory`.
//!
//! Ours, its rivals and the bare route take turns within each round.

mod common;

use std::future::ready;

use common::{
    Budget, is_smoke, median, rounds,
    sides::{
        BoxSide, bare, idle_layer, least, ours, ours_blocking, ours_by_current, runtime, spawned,
        spawned_blocking, traced,
    },
    time,
};
use http::Response;
use tokio::runtime::Runtime;
use tower_background_tasks::{BackgroundTasks, Runner};

/// Many short rounds: shorter than the time for which the system gives the processor to somebody else, so that most rounds are left
/// alone. The median over the rounds of what `ratio` makes of the sides' times in one round, in seconds a request.
fn compare<const N: usize>(
    runtime: &Runtime,
    mut sides: [BoxSide; N],
    requests: usize,
    ratio: impl Fn([f64; N]) -> f64,
) -> f64 {
    let requests = if is_smoke() { 10 } else { requests };
    runtime.block_on(async {
        for side in &mut sides {
            side.requests(requests).await; // warm up
        }
    });
    let ratios = (0..rounds(1_001)).map(|round| {
        let mut times = [0.0; N];
        for turn in 0..N {
            let side = (turn + round) % N; // each goes first in turn
            let spent = time(|| runtime.block_on(sides[side].requests(requests)));
            times[side] = spent.as_secs_f64() / requests as f64;
        }
        ratio(times)
    });
    median(ratios.collect())
}

/// The cost of a task (adding it, and running it) among a million, over that among a thousand.
fn waiting(runtime: &Runtime) -> f64 {
    let many = if is_smoke() { 10_000 } else { 1_000_000 };
    let few = 1_000;
    let runner = Runner::new();
    let spend = |tasks: usize, times: usize| {
        let spent = time(|| {
            for _ in 0..times {
                runtime.block_on(async {
                    let queue = BackgroundTasks::new();
                    let response = runner.attach(Response::new(String::new()), queue.clone());
                    for _ in 0..tasks {
                        queue.add_task(ready(()));
                    }
                    drop(response);
                    runner.idle().await;
                });
            }
        });
        spent.as_secs_f64() / (tasks * times) as f64
    };
    spend(few, 100); // warm up
    median(
        (0..rounds(7))
            .map(|_| spend(many, 1) / spend(few, many / few))
            .collect(),
    )
}

fn main() {
    let runtime = runtime();
    let mut budget = Budget::default();
    let added = |[bare, one, other]: [f64; 3]| (one - bare) / (other - bare);

    budget.at_most(
        "idle layer over no layer, as a share of what TraceLayer adds",
        compare(&runtime, [bare(), idle_layer(), traced()], 200, added),
        0.4,
    );
    budget.tell(
        "  the least layer, without any promise, likewise",
        compare(&runtime, [bare(), least(0), traced()], 200, added),
    );
    budget.at_most(
        "one task: what layer + task add, over what tokio::spawn adds",
        compare(&runtime, [bare(), ours(1), spawned(1)], 200, added),
        1.5,
    );
    budget.tell(
        "  one task with the least layer, likewise",
        compare(&runtime, [bare(), least(1), spawned(1)], 200, added),
    );
    let nanoseconds = |[one, other]: [f64; 2]| (one - other) * 1e9;
    budget.tell(
        "  one task: nanoseconds more than with tokio::spawn",
        compare(&runtime, [ours(1), spawned(1)], 200, nanoseconds),
    );
    budget.tell(
        "  one task with the least layer, likewise",
        compare(&runtime, [least(1), spawned(1)], 200, nanoseconds),
    );
    budget.tell(
        "  one task by BackgroundTasks::current(), over what tokio::spawn adds",
        compare(
            &runtime,
            [bare(), ours_by_current(1), spawned(1)],
            200,
            added,
        ),
    );
    budget.tell(
        "  one task by current(), whole request, over the extractor",
        compare(&runtime, [ours_by_current(1), ours(1)], 200, |[a, b]| a / b),
    );
    for (tasks, limit) in [(8, 0.8), (64, 0.5)] {
        budget.at_most(
            &format!("{tasks} tasks, whole request, over {tasks} x tokio::spawn"),
            compare(
                &runtime,
                [ours(tasks), spawned(tasks)],
                400 / tasks,
                |[a, b]| a / b,
            ),
            limit,
        );
    }
    budget.tell(
        "  8 tasks with the least layer, likewise",
        compare(&runtime, [least(8), spawned(8)], 50, |[a, b]| a / b),
    );
    for (tasks, limit) in [(1, 1.0), (8, 0.3)] {
        budget.at_most(
            &format!("{tasks} blocking, whole request, over {tasks} x spawn_blocking"),
            compare(
                &runtime,
                [ours_blocking(tasks), spawned_blocking(tasks)],
                80 / tasks,
                |[a, b]| a / b,
            ),
            limit,
        );
    }
    budget.at_most(
        "a task with a million waiting, over a thousand waiting",
        waiting(&runtime),
        1.5,
    );
    budget.verdict();
}
