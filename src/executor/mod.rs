//! Makes ready batches run.

pub(crate) mod admission;
pub(crate) mod batch;
pub(crate) mod crew;
pub(crate) mod drive;
pub(crate) mod execution;
pub(crate) mod lanes;
pub(crate) mod plain;
pub(crate) mod sent;
pub(crate) mod slice;
pub(crate) mod start;
