//! The progress line, once a second where it has changed.

use std::{
    fmt::Display,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::sleep;
use tower_background_tasks::Runner;

use crate::Engine;

/// What the workers of this process have tried again.
#[derive(Debug, Default)]
pub(crate) struct Retried(AtomicU64);

impl Retried {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Jobs as the store has them; `retried` is this process' own.
pub(crate) async fn of_store(engine: &Engine, retried: &Retried) {
    let mut last = String::new();
    loop {
        let retried = retried.0.load(Ordering::Relaxed);
        let line = match engine.counts().await {
            Ok(counts) => format!(
                "accepted {}, done {}, retried {retried}, left {}, dead {}",
                counts.accepted,
                counts.done,
                counts.left(),
                counts.dead
            ),
            Err(error) => format!("no progress known, as the store does not answer: {error}"),
        };
        print_changed(&mut last, line);
        sleep(Duration::from_secs(1)).await;
    }
}

/// Jobs that run in this process.
pub(crate) async fn of_runner(runner: &Runner) {
    let mut last = String::new();
    loop {
        let stats = runner.stats();
        let left = stats.awaiting_response + stats.pending + stats.running;
        let line = format!(
            "in this process: accepted {}, done {}, failed {}, left {left}",
            stats.added, stats.completed, stats.failed
        );
        print_changed(&mut last, line);
        sleep(Duration::from_secs(1)).await;
    }
}

fn print_changed(last: &mut String, line: impl Display) {
    let line = line.to_string();
    if *last != line {
        println!("{line}");
        *last = line;
    }
}
