//! What the root's tests have as well: the same files.

#[path = "../../../it/support/panics_when_dropped.rs"]
mod panics_when_dropped;
#[path = "../../../it/support/raw_client.rs"]
mod raw_client;
#[path = "../../../it/support/soon.rs"]
mod soon;

pub(crate) use self::{panics_when_dropped::PanicsWhenDropped, raw_client::RawClient, soon::soon};
