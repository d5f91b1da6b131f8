//! What every room may use: user code contained, locks that loom can replace, counts kept apart by thread, a time that passes.
//! It uses no other room.

pub(crate) mod contain;
pub(crate) mod counted;
pub(crate) mod sharded;
pub(crate) mod sync;
pub(crate) mod timer;
