//! Orders whose work outlives the process that accepted them, on SQLite, Postgres or Redis. `main.rs` says how to run it.
//!
//! `handler.rs` and `job.rs` are the application, and know nothing of where a job runs. `runner.rs` is all that changes between one
//! process and many. `work.rs` is the worker, which is apalis'; `engine` is what the three stores need.

pub mod engine;
mod handler;
mod job;
mod progress;
mod runner;
mod serve;
mod settings;
mod stop;
mod warehouse;
mod work;

pub use self::{
    engine::Engine,
    job::ShipOrder,
    serve::serve,
    settings::{Mode, Settings},
    stop::stopped,
    warehouse::Warehouse,
    work::work,
};
