//! The promises, each as tests. One binary: `cargo test --test it order` runs the tests of one file.

mod adding;
#[cfg(feature = "apalis")]
mod apalis;
mod attach;
mod cancel;
mod connection;
mod ends;
mod extract;
mod failure;
mod isolation;
#[cfg(feature = "jobs")]
mod job_support;
#[cfg(feature = "jobs")]
mod jobs;
mod limits;
#[cfg(feature = "metrics")]
mod metrics;
mod order;
mod reuse;
mod runtime;
mod shutdown;
#[cfg(feature = "jobs")]
mod spill;
mod support;
mod task;
mod transparent;
#[cfg(feature = "jobs")]
mod worker;
