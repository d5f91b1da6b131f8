//! The promises, each as tests. One binary: `cargo test --test it order` runs the tests of one file.

mod adding;
mod attach;
mod connection;
mod ends;
mod extract;
mod isolation;
mod order;
mod runtime;
mod support;
mod task;
mod transparent;
