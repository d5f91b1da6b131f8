//! The constructors of a queue.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::{Extensions, Request, Version};
use tokio::time::Instant;

use super::{Entries, Owner, Phase, Queue, RequestInfo, State, TaskList, seen::Seen};
use crate::util::sync::{Mutex, OnceLock};

/// What differs between queues when they are made.
struct Origin {
    owner: Option<Arc<Owner>>,
    request: Option<RequestInfo>,
    multiplexed: bool,
    extensions: Extensions,
    is_held: bool,
    is_shielded: bool,
    seen: Option<Box<Seen>>,
    serial: u64,
    phase: Phase,
}

impl Queue {
    /// Makes a queue that waits to be attached to a response.
    pub(crate) fn stand_alone() -> Arc<Self> {
        Self::stand_alone_with(Extensions::new())
    }

    /// Like [`stand_alone`](Self::stand_alone), with values for a room above.
    pub(crate) fn stand_alone_with(extensions: Extensions) -> Arc<Self> {
        Self::new(Origin {
            owner: None,
            request: None,
            multiplexed: true,
            extensions,
            is_held: false,
            is_shielded: false,
            seen: None,
            serial: next_serial(),
            phase: Phase::Open,
        })
    }

    /// Makes a queue that waits for the response to `request` to end. `extensions` holds the
    /// values captured from the request. The handler `is_detached` if it is a task of the runner.
    pub(crate) fn of_request<B>(
        owner: &Arc<Owner>,
        request: &Request<B>,
        extensions: Extensions,
        is_detached: bool,
    ) -> Arc<Self> {
        let id_header = owner.shared.settings.request_id_header.as_ref();
        let queue = Self::new(Origin {
            request: Some(RequestInfo::of(request, id_header, &extensions)),
            multiplexed: request.version() >= Version::HTTP_2,
            extensions,
            seen: Self::seen_of(owner, is_detached),
            ..Origin::of(Arc::clone(owner), Phase::Open)
        });
        queue.follow();
        queue
    }

    /// Makes a queue that waits for a response to end, and does not know its request.
    pub(crate) fn of_response(owner: Arc<Owner>) -> Arc<Self> {
        let queue = Self::new(Origin {
            seen: Self::seen_of(&owner, false),
            ..Origin::of(owner, Phase::Open)
        });
        queue.follow();
        queue
    }

    /// Returns `None` unless the queue is followed. A recording runner has no tasks that wait for
    /// a response.
    fn seen_of(owner: &Owner, is_detached: bool) -> Option<Box<Seen>> {
        let is_followed = owner.shared.follows_requests() && !owner.is_recording();
        is_followed.then(|| Box::new(Seen::new(is_detached)))
    }

    /// Makes a queue whose tasks wait until they are released into this one.
    pub(crate) fn held(self: &Arc<Self>) -> Arc<Self> {
        let root = self.root();
        Self::new(Origin {
            owner: root.owner.clone(),
            request: root.request.clone(),
            multiplexed: root.multiplexed,
            extensions: self.extensions.clone(),
            is_held: true,
            is_shielded: false,
            seen: None,
            serial: next_serial(),
            phase: Phase::Open,
        })
    }

    /// Makes a queue for a part of this request's handler, which begins at once. Returns `None` if
    /// no runner takes it.
    pub(crate) fn shielded(self: &Arc<Self>) -> Option<Arc<Self>> {
        let root = self.root();
        let owner = root.owner.as_ref()?;
        if owner.queues.is_closed() || owner.is_recording() {
            return None;
        }
        Some(Self::new(Origin {
            request: root.request.clone(),
            extensions: root.extensions.clone(),
            is_shielded: true,
            ..Origin::of(Arc::clone(owner), Phase::Idle)
        }))
    }

    /// Makes a queue with no response to wait for.
    pub(crate) fn of_no_request(owner: Arc<Owner>) -> Arc<Self> {
        Self::new(Origin::of(owner, Phase::Idle))
    }

    #[inline]
    fn new(origin: Origin) -> Arc<Self> {
        let owner = origin.owner.as_ref();
        Arc::new(Self {
            runtime: owner.and_then(|owner| owner.remember_current_runtime()),
            owner: origin.owner,
            request: origin.request,
            arrived: Instant::now(),
            multiplexed: origin.multiplexed,
            outcome: OnceLock::new(),
            extensions: origin.extensions,
            is_held: origin.is_held,
            is_shielded: origin.is_shielded,
            seen: origin.seen,
            serial: origin.serial,
            state: Mutex::new(State {
                phase: origin.phase,
                tasks: TaskList::default(),
                entries: Entries::default(),
                place: None,
                stopped: false,
                taken: 0,
                followed: None,
                is_warned_of: false,
            }),
        })
    }
}

fn next_serial() -> u64 {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    SERIAL.fetch_add(1, Relaxed)
}

impl Origin {
    #[inline]
    fn of(owner: Arc<Owner>, phase: Phase) -> Self {
        Self {
            request: None,
            multiplexed: true,
            extensions: Extensions::new(),
            is_held: false,
            is_shielded: false,
            seen: None,
            serial: 0,
            phase: if owner.is_recording() {
                Phase::Recording
            } else {
                phase
            },
            owner: Some(owner),
        }
    }
}
