//! What a shutdown waits for besides tasks: open requests and connections that are kept open.
//! Requests are followed only if a [plan](crate::Serve) may cut them off.

use std::{panic::Location, sync::Arc, task::Waker};

use tokio::time::Instant;

use super::{Queue, owner::Owner, seen::Seen};
use crate::{
    ResponseOutcome,
    observe::{open_connection::OpenConnection, open_request::OpenRequest},
    util::{contain::contain, sync::lock},
};

/// Counts an open request until this is dropped.
pub(super) struct Followed(Arc<Owner>);

impl Followed {
    fn new(owner: &Arc<Owner>) -> Self {
        owner.shared.request_opened();
        Self(Arc::clone(owner))
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.shared.request_ended();
    }
}

/// A response that has been cut off: nothing more of it passes. Dropping this ends the response,
/// so its tasks run.
pub(crate) struct CutOff {
    queue: Arc<Queue>,
    outcome: ResponseOutcome,
    waiting: Option<Waker>,
}

impl CutOff {
    /// Returns the row of the request in a report.
    pub(crate) fn row(&self) -> OpenRequest {
        OpenRequest {
            request: self.queue.request.clone(),
            status: self.outcome.status,
            age: self.queue.arrived.elapsed(),
        }
    }
}

impl Drop for CutOff {
    /// Also wakes the connection, which then drops the handler or the body.
    fn drop(&mut self) {
        Arc::clone(&self.queue).end(self.outcome.clone());
        let _ = contain(|| self.waiting.take().map(Waker::wake));
    }
}

impl Owner {
    /// Cuts off each open response.
    pub(crate) fn cut_off_open(&self) -> Vec<CutOff> {
        let queues = self.queues.entries().into_iter();
        let cut_off = queues.filter_map(|queue| {
            let (outcome, waiting) = queue.seen()?.cut_off()?;
            Some(CutOff {
                queue,
                outcome,
                waiting,
            })
        });
        cut_off.collect()
    }
}

impl Queue {
    /// Keeps the queue in the registry, and counts its request, until the response has ended. A
    /// closed registry does not take the queue, as no shutdown waits any more.
    pub(super) fn follow(self: &Arc<Self>) {
        let Some(owner) = self.owner.as_ref().filter(|_| self.seen.is_some()) else {
            return;
        };
        let followed = Some(Followed::new(owner)); // dropped after the lock if it is not taken
        let mut state = lock(&self.state);
        if let Ok(place) = owner.queues.enter(self) {
            (state.place, state.followed) = (Some(place), followed);
        }
    }

    /// Returns what has passed of the response. Returns `None` if it is not followed.
    #[inline]
    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.seen.as_deref()
    }

    /// Makes a shutdown of this queue's runner wait for the connection.
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
            closed: None,
        });
        Some((Arc::clone(owner), number))
    }
}
