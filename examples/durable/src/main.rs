//! Orders whose work outlives the process that accepted them.
//!
//! ```text
//! cargo run --package durable                      # server and worker in one process, on SQLite
//! curl -H 'content-type: application/json' -d '{"number":1,"failures":2}' http://127.0.0.1:3000/orders
//! ```
//!
//! Apart: `durable serve postgres://…` and `durable work postgres://…`, or `redis://…`. Without a store, until the server stops:
//! `durable --in-process`. `src/settings.rs` has the other words, and what can be set by the environment.

use std::io;

use durable::{Engine, Mode, Settings, board, run};
use tower_background_tasks::BoxError;
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The spans of jobs, which say which one and for which request, are at this level.
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO);
    log.with_writer(io::stderr).init();
    let settings = Settings::of_process();
    let engine = Engine::connect(&settings).await?;
    match settings.mode {
        Mode::Dead => engine
            .dead()
            .await?
            .iter()
            .for_each(|job| println!("{job}")),
        Mode::Retry(id) => engine.retry(id).await?,
        Mode::Board => board(&settings, &engine).await?,
        Mode::Both | Mode::Serve | Mode::Work => run(settings, engine).await?,
    }
    Ok(())
}
