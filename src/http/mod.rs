//! The way of a request and its response: layer, service, body, and how handlers find their queue.

pub(crate) mod attach;
pub(crate) mod body;
pub(crate) mod current;
#[cfg(feature = "axum")]
mod extract;
pub(crate) mod future;
pub(crate) mod layer;
pub(crate) mod missing_layer;
pub(crate) mod service;
