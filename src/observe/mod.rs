//! What others can observe of tasks: rows, reports, log events, spans and metrics. This room uses
//! `task` and below.

pub(crate) mod info;
pub(crate) mod limit_use;
#[cfg_attr(not(feature = "metrics"), path = "no_metrics.rs")]
pub(crate) mod metrics;
pub(crate) mod open_connection;
pub(crate) mod open_request;
#[cfg(feature = "tracing")]
pub(crate) mod repeats;
pub(crate) mod report;
pub(crate) mod span;
#[cfg(feature = "dashboard")]
pub(crate) mod tally;
