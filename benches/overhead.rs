//! What does it cost me? A whole request with the layer and its tasks, beside the ways they replace.
//!
//!     cargo bench --bench overhead
//!
//! `cargo bench --package instructions` counts the same, and does not jitter. `memory` counts what
//! is allocated. Here are the times, which no count tells, and blocking tasks.

#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

use common::{
    Budget,
    by_hand::{by_hand, tracked},
    is_smoke, median, rounds,
    sides::{
        BoxSide, bare, idle_layer, ours, ours_blocking, runtime, spawned, spawned_blocking, traced,
    },
    time,
};
use tokio::runtime::Runtime;

/// The median over many short rounds of what `figure` makes of the sides' seconds a request.
///
/// A round is shorter than the time for which the system gives the processor to another process, so
/// that most rounds are left alone.
fn compare<const N: usize>(
    runtime: &Runtime,
    mut sides: [BoxSide; N],
    requests: usize,
    figure: impl Fn([f64; N]) -> f64,
) -> f64 {
    let requests = if is_smoke() { 10 } else { requests };
    runtime.block_on(async {
        for side in &mut sides {
            side.requests(requests).await; // warm up
        }
    });
    let figures = (0..rounds(1_001)).map(|round| {
        let mut times = [0.0; N];
        for turn in 0..N {
            let side = (turn + round) % N; // each goes first in turn
            let spent = time(|| runtime.block_on(sides[side].requests(requests)));
            times[side] = spent.as_secs_f64() / requests as f64;
        }
        figure(times)
    });
    median(figures.collect())
}

fn main() {
    let runtime = runtime();
    let mut budget = Budget::default();
    let ratio = |[one, other]: [f64; 2]| one / other;
    let nanoseconds = |[one, other]: [f64; 2]| (one - other) * 1e9;

    println!("a whole request, its tasks included");
    budget.tell(
        "nanoseconds more: idle layer than no layer",
        compare(&runtime, [idle_layer(), bare()], 200, nanoseconds),
    );
    budget.tell(
        "nanoseconds more: TraceLayer than no layer",
        compare(&runtime, [traced(), bare()], 200, nanoseconds),
    );
    budget.tell(
        "nanoseconds more: one task than tokio::spawn",
        compare(&runtime, [ours(1), spawned(1)], 200, nanoseconds),
    );
    budget.tell(
        "one task, over tokio::spawn",
        compare(&runtime, [ours(1), spawned(1)], 200, ratio),
    );
    budget.tell(
        "one task, over TaskTracker::spawn",
        compare(&runtime, [ours(1), tracked(1)], 200, ratio),
    );
    budget.tell(
        "one task, over the same promises by hand",
        compare(&runtime, [ours(1), by_hand()], 200, ratio),
    );
    for tasks in [8, 64] {
        budget.tell(
            &format!("{tasks} tasks, over {tasks} x tokio::spawn"),
            compare(&runtime, [ours(tasks), spawned(tasks)], 400 / tasks, ratio),
        );
    }
    for (tasks, limit) in [(1, 1.05), (8, 0.25)] {
        let sides = [ours_blocking(tasks), spawned_blocking(tasks)];
        budget.at_most(
            &format!("{tasks} blocking, over {tasks} x spawn_blocking"),
            compare(&runtime, sides, 80 / tasks, ratio),
            limit,
        );
    }
    budget.verdict();
}
