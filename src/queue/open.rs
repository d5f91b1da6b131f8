//! What a shutdown waits for besides tasks: requests whose responses have not ended, followed where a
//! [plan](crate::Serve) cuts them off; and connections that are kept open.

use std::{panic::Location, sync::Arc};

use http::StatusCode;
use tokio::time::Instant;

use super::{Phase, Queue, owner::Owner};
use crate::{
    ResponseEnd, ResponseOutcome,
    observe::{open_connection::OpenConnection, open_request::OpenRequest},
    util::sync::lock,
};

impl Queue {
    /// Keeps the queue in the registry until its response has ended.
    pub(super) fn follow(self: &Arc<Self>) {
        if let Some(owner) = &self.owner {
            owner.shared.request_opened();
            lock(&self.state).place = owner.queues.enter(self).ok();
        }
    }

    /// Has a shutdown of this queue's runner wait.
    pub(crate) fn keep_open(
        self: &Arc<Self>,
        location: &'static Location<'static>,
    ) -> Option<(Arc<Owner>, u64)> {
        let root = self.root();
        let owner = root.owner.as_ref()?;
        let number = owner.shared.keep_open(OpenConnection {
            request: root.request.clone(),
            location,
            since: Instant::now(),
        });
        Some((Arc::clone(owner), number))
    }

    /// Tells that the response of a queue that is followed has ended.
    pub(super) fn followed_to_its_end(&self) {
        if let Some(owner) = self.owner.as_ref().filter(|_| self.seen.is_some()) {
            owner.shared.request_ended();
        }
    }

    pub(crate) fn note_status(&self, status: StatusCode) {
        if let Some(seen) = &self.seen {
            seen.note_status(status);
        }
    }

    #[inline]
    pub(crate) fn note_body_bytes(&self, bytes: u64) {
        if let Some(seen) = &self.seen {
            seen.note_body_bytes(bytes);
        }
    }

    /// True once the response has ended.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Ends a response that is still open. Its handler and its body are not polled again.
    pub(super) fn end_open(self: &Arc<Self>, now: Instant) -> Option<OpenRequest> {
        let is_open = matches!(lock(&self.state).phase, Phase::Open);
        if !is_open || self.is_held {
            return None;
        }
        let seen = self.seen.as_ref();
        let status = seen.and_then(|seen| seen.status());
        let end = match status {
            Some(_) => ResponseEnd::Aborted,
            None => ResponseEnd::Cancelled,
        };
        let outcome = ResponseOutcome {
            body_bytes: seen.map_or(0, |seen| seen.body_bytes()),
            ..ResponseOutcome::new(end, status)
        };
        // The response may have ended by itself in this moment.
        Arc::clone(self).end(outcome).then(|| OpenRequest {
            request: self.request.clone(),
            status,
            age: now.duration_since(self.arrived),
        })
    }
}
