//! [`Seen`]: how far a response has come.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::StatusCode;

use crate::util::sync::OnceLock;

/// What has been seen of a response so far. Only a queue that is followed has it.
#[derive(Default)]
pub(super) struct Seen {
    status: OnceLock<StatusCode>,
    body_bytes: AtomicU64,
}

impl Seen {
    pub(super) fn status(&self) -> Option<StatusCode> {
        self.status.get().copied()
    }

    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Relaxed)
    }

    pub(super) fn note_status(&self, status: StatusCode) {
        let _ = self.status.set(status);
    }

    pub(super) fn note_body_bytes(&self, bytes: u64) {
        self.body_bytes.store(bytes, Relaxed);
    }
}
