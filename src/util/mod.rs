//! What every room may use: contained user code and its panics, locks that loom can replace,
//! sharded values, timers. It uses no other room.

pub(crate) mod contain;
pub(crate) mod counted;
pub(crate) mod panic;
pub(crate) mod sharded;
pub(crate) mod sync;
#[cfg(any(feature = "dashboard", feature = "tracing"))]
pub(crate) mod text;
pub(crate) mod timer;
