//! What every room may use: user code contained, locks that loom can replace, counts kept apart by thread. It uses no other room.

pub(crate) mod contain;
pub(crate) mod sharded;
pub(crate) mod sync;
pub(crate) mod waiting;
