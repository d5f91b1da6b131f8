//! The progress line, once a second where it has changed.

use std::time::Duration;

use tokio::time::sleep;
use tower_background_tasks::Runner;

use crate::Engine;

/// Jobs as the store has them.
pub(crate) async fn of_store(engine: &Engine) {
    let mut last = String::new();
    loop {
        let line = match engine.counts().await {
            Ok(counts) => counts.to_string(),
            Err(error) => format!("no progress known, as the store does not answer: {error}"),
        };
        print_changed(&mut last, line).await;
    }
}

/// Jobs that run in this process.
pub(crate) async fn of_runner(runner: &Runner) {
    let mut last = String::new();
    loop {
        let line = format!("in this process: {}", runner.stats());
        print_changed(&mut last, line).await;
    }
}

async fn print_changed(last: &mut String, line: String) {
    if *last != line {
        println!("{line}");
        *last = line;
    }
    sleep(Duration::from_secs(1)).await;
}
