//! What is counted: each side in a process of its own, which valgrind runs. The setup warms the
//! side up, and is not counted.

#![expect(clippy::exit, reason = "gungraun's own, in its `main`")]

use gungraun::{Callgrind, LibraryBenchmarkConfig, prelude::*};
use tokio::runtime::Runtime;
use tracing::Level;

use crate::{
    common::{
        by_hand::{by_hand, tracked},
        sides::{BoxSide, bare, idle_layer, ours, runtime, spawned, traced},
    },
    sides::{logging, ours_in_span_of_request, spawned_in_span, spawned_in_span_of_request},
};

/// How many requests are counted, and as many before them are not.
pub(crate) const REQUESTS: usize = 1_000;

/// A side in its steady state.
struct Warm {
    runtime: Runtime,
    side: BoxSide,
}

impl Warm {
    fn requests(&mut self) {
        self.runtime.block_on(self.side.requests(REQUESTS));
    }
}

fn warm_up(side: fn() -> BoxSide) -> Warm {
    let mut warm = Warm {
        runtime: runtime(),
        side: side(),
    };
    warm.requests();
    warm
}

// Gives back what it was given: dropping it is not counted. (The macro takes no doc comment.)
#[library_benchmark(setup = warm_up)]
#[bench::bare(bare)]
#[bench::traced(traced)]
#[bench::idle_layer(idle_layer)]
#[bench::ours_1(|| ours(1))]
#[bench::ours_8(|| ours(8))]
#[bench::ours_64(|| ours(64))]
#[bench::spawned_1(|| spawned(1))]
#[bench::spawned_8(|| spawned(8))]
#[bench::spawned_64(|| spawned(64))]
#[bench::tracked_1(|| tracked(1))]
#[bench::by_hand(by_hand)]
#[bench::warn_ours_1(|| logging(Level::WARN, || ours(1)))]
#[bench::warn_ours_8(|| logging(Level::WARN, || ours(8)))]
#[bench::info_ours_1(|| logging(Level::INFO, || ours(1)))]
#[bench::info_spawned_1(|| logging(Level::INFO, spawned_in_span))]
#[bench::info_request_ours_1(|| logging(Level::INFO, ours_in_span_of_request))]
#[bench::info_request_spawned_1(|| logging(Level::INFO, spawned_in_span_of_request))]
fn requests(mut warm: Warm) -> Warm {
    warm.requests();
    warm
}

fn config() -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::with_args(["--cache-sim=no"]));
    config
}

library_benchmark_group!(name = whole, benchmarks = requests);
main!(config = config(), library_benchmark_groups = whole);

/// Starts the runner, or is started by it to be counted.
pub(crate) fn run() {
    main();
}
