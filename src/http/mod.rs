//! The path of a request and its response: the layer, how a response ends, and how handlers find
//! their queue.
//!
//! It uses `runner`, the handle [`BackgroundTasks`](crate::BackgroundTasks), `queue` and below.

pub(crate) mod attach;
pub(crate) mod body;
pub(crate) mod current;
pub(crate) mod detached;
mod end_guard;
#[cfg(feature = "axum")]
mod extract;
pub(crate) mod future;
mod grpc;
pub(crate) mod layer;
pub(crate) mod missing_layer;
pub(crate) mod service;
pub(crate) mod shield;
