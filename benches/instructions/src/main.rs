//! Counts the instructions of a whole request, by gungraun over callgrind: the lines of the budget
//! that do not jitter.
//!
//!     cargo install gungraun-runner --version 0.20.0 --locked    once; needs valgrind
//!     cargo bench --package instructions                         half a minute
//!
//! Prints the instructions of each side, and the ratios with their goals. It fails where a ratio is
//! above what is held: what was measured last, and 5 %. With arguments for gungraun behind `--`, such as
//! `'*::bare'` or `--output-format=json`, it is gungraun's bench alone.
//!
//! A request is counted from its making until what it spawned has had its turn, in the steady
//! state, on a current-thread runtime. One binary gives the same number again; another split of
//! the code into codegen units changes counts and ratios by up to 5 %.
//!
//! Not counted: what an instruction takes (cache misses, contended locks), and what the kernel
//! does. Under valgrind a look at the clock is a system call, so it counts for little. Blocking
//! tasks are left out, since they run on threads of their own.

use std::{env, process::ExitCode};

#[expect(dead_code, reason = "each bench uses a part of it")]
#[path = "../../common/mod.rs"]
mod common;
mod counted;
mod figures;
mod sides;

use figures::Figures;

/// The budget: what is compared, the side, what it is over, the goal, and what is held meanwhile: the
/// last measurement and 5 %.
#[rustfmt::skip]
const BUDGET: [(&str, &str, &str, f64, f64); 8] = [
    ("idle layer, over TraceLayer", "idle_layer", "traced", 1.00, 1.15),
    ("one task, over tokio::spawn", "ours_1", "spawned_1", 1.20, 1.74),
    ("8 tasks, over 8 x tokio::spawn", "ours_8", "spawned_8", 0.80, 1.13),
    ("64 tasks, over 64 x tokio::spawn", "ours_64", "spawned_64", 0.47, 0.86),
    ("one task, over the same promises by hand", "ours_1", "by_hand", 0.90, 1.58),
    ("one task with a subscriber at WARN, over without", "warn_ours_1", "ours_1", 1.05, 1.05),
    ("8 tasks with a subscriber at WARN, over without", "warn_ours_8", "ours_8", 1.10, 1.05),
    ("one task at INFO, over tokio::spawn in a span", "info_ours_1", "info_spawned_1", 1.10, 1.34),
];

/// Ratios without a limit.
#[rustfmt::skip]
const TOLD: [(&str, &str, &str); 4] = [
    ("one task, over TaskTracker::spawn", "ours_1", "tracked_1"),
    ("one task at INFO, each request in a span", "info_request_ours_1", "info_request_spawned_1"),
    ("idle layer, over no layer", "idle_layer", "bare"),
    ("one task, over no layer", "ours_1", "bare"),
];

fn main() -> ExitCode {
    // The runner, or somebody who wants gungraun alone.
    if env::args().skip(1).any(|argument| argument != "--bench") {
        counted::run();
        return ExitCode::SUCCESS;
    }
    match is_held(&Figures::count()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Prints all ratios. True if each is within what is held.
fn is_held(figures: &Figures) -> bool {
    let mut above = 0;
    for (what, side, other, goal, most) in BUDGET {
        let ratio = figures.ratio(side, other);
        above += usize::from(ratio > most);
        let verdict = match ratio {
            ratio if ratio > most => "ABOVE WHAT IS HELD",
            ratio if ratio > goal => "falls short",
            _ => "reached",
        };
        println!("{what:<56} {ratio:>8.3}  goal {goal:.2}, held {most:.2}  {verdict}");
    }
    for (what, side, other) in TOLD {
        println!("{what:<56} {:>8.3}", figures.ratio(side, other));
    }
    println!("{above} of {} lines are above what is held", BUDGET.len());
    above == 0
}
