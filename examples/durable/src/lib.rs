//! Orders whose work outlives the process that accepted them, on SQLite, Postgres or Redis. `main.rs` says how to run it.
//!
//! `handler.rs` and `job.rs` are the application, and know nothing of where a job runs. `runner.rs` is all that changes between one
//! process and many. `run.rs` is the plan by which server and worker end. `work.rs` is the worker, which is apalis'; `engine` is what the three stores need.

mod board;
pub mod engine;
mod handler;
mod job;
mod progress;
mod run;
mod runner;
mod serve;
mod settings;
mod warehouse;
mod work;

pub use self::{
    board::board,
    engine::Engine,
    job::ShipOrder,
    run::run,
    settings::{Mode, Settings},
    warehouse::Warehouse,
};
