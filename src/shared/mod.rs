//! What the parts of one runner share: counts, and the registry of queues.

pub(crate) mod registry;
pub(crate) mod stats;
