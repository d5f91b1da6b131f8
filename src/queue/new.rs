//! How a queue comes to be.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::{Extensions, Request, Version};
use tokio::time::Instant;

use super::{Entries, Owner, Phase, Queue, RequestLine, State, TaskList};
use crate::util::sync::{Mutex, OnceLock};

impl Queue {
    /// A queue that waits to be attached to a response.
    pub(crate) fn stand_alone() -> Arc<Self> {
        Self::stand_alone_with(Extensions::new())
    }

    /// The same, with something for a room above.
    pub(crate) fn stand_alone_with(extensions: Extensions) -> Arc<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let mut queue = Self::new(None, Phase::Open);
        queue.extensions = extensions;
        queue.serial = SERIAL.fetch_add(1, Relaxed);
        Arc::new(queue)
    }

    /// A queue that waits for the response to `request` to end.
    pub(crate) fn of_request<B>(owner: &Arc<Owner>, request: &Request<B>) -> Arc<Self> {
        let mut queue = Self::new(Some(Arc::clone(owner)), Phase::Open);
        queue.request = Some(RequestLine::of(request));
        queue.multiplexed = request.version() >= Version::HTTP_2;
        if let Some(on_request) = &owner.shared.settings.on_request {
            on_request(request.headers(), &mut queue.extensions);
        }
        Arc::new(queue)
    }

    /// A queue that waits for a response to end, of a request that is not known.
    pub(crate) fn of_response(owner: Arc<Owner>) -> Arc<Self> {
        Arc::new(Self::new(Some(owner), Phase::Open))
    }

    /// A queue with no response to wait for.
    pub(crate) fn of_no_request(owner: Arc<Owner>) -> Arc<Self> {
        Arc::new(Self::new(Some(owner), Phase::Idle))
    }

    fn new(owner: Option<Arc<Owner>>, phase: Phase) -> Self {
        Self {
            runtime: owner.as_ref().and_then(|owner| owner.current_runtime()),
            owner,
            request: None,
            arrived: Instant::now(),
            multiplexed: true,
            outcome: OnceLock::new(),
            extensions: Extensions::new(),
            serial: 0,
            state: Mutex::new(State {
                phase,
                tasks: TaskList::default(),
                entries: Entries::default(),
                place: None,
                stopped: false,
                taken: 0,
            }),
        }
    }
}
