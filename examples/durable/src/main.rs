//! Orders whose work outlives the process that accepted them.
//!
//! ```text
//! cargo run --package durable                      # server and worker in one process, on SQLite
//! curl -H 'content-type: application/json' -d '{"number":1,"failures":2}' http://127.0.0.1:3000/orders
//! cat shipped.log
//! ```
//!
//! Apart, on one machine or many: `durable serve postgres://…` and `durable work postgres://…`, or `redis://…`. Without a store, until
//! the server stops: `durable --in-process`. `durable dead` lists what nobody could ship. `src/settings.rs` has what can be set by the
//! environment.

use std::{env, process::ExitCode};

use durable::{Engine, Mode, Settings, run};
use tower_background_tasks::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let settings = Settings::read(env::args().skip(1))?;
    let engine = Engine::connect(&settings).await?;
    if settings.mode != Mode::Dead {
        return run(settings, engine).await;
    }
    for dead in engine.dead().await? {
        println!("{}\n  {}", dead.job, dead.error);
    }
    Ok(())
}
