//! What surrounds a task, to copy: four recipes for `RunnerBuilder::capture`, `around` and `request_id_header`, each with a test that
//! shows what comes of it.
//!
//! ```text
//! cargo test --package recipes
//! ```

pub mod open_telemetry;
pub mod request_id;
pub mod sentry_hub;
pub mod tenant;

#[cfg(test)]
mod support;
