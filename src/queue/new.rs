//! How a queue comes to be, and to be used again.

use std::sync::Arc;

use http::{Request, Version};
use tokio::time::Instant;

use super::{Phase, Queue, State};
#[cfg(feature = "jobs")]
use crate::jobs::JobSide;
use crate::{
    Runner,
    queue::current::Currents,
    queue::pool,
    queue::task_list::TaskList,
    task::request_line::RequestLine,
    util::sync::{Mutex, OnceLock, get_mut},
};

impl Queue {
    /// A queue that waits to be attached to a response.
    pub(crate) fn stand_alone() -> Arc<Self> {
        Self::new(None, true, Phase::Open, |_| {})
    }

    /// A queue that waits for the response to `request` to end.
    pub(crate) fn of_request<B>(runner: Runner, request: &Request<B>) -> Arc<Self> {
        let multiplexed = request.version() >= Version::HTTP_2;
        #[cfg(feature = "jobs")]
        let job_side = JobSide::of_request(&runner, request.headers());
        Self::new(Some(runner), multiplexed, Phase::Open, |queue| {
            queue.request.set(request);
            queue.has_request = true;
            #[cfg(feature = "jobs")]
            {
                queue.job_side = job_side;
            }
        })
    }

    /// Sets what jobs need to know, of a queue that nobody else holds yet.
    #[cfg(feature = "jobs")]
    pub(crate) fn with_job_side(mut queue: Arc<Self>, job_side: Option<Box<JobSide>>) -> Arc<Self> {
        if let Some(queue) = Arc::get_mut(&mut queue) {
            queue.job_side = job_side;
        }
        queue
    }

    /// A queue that waits for a response to end, of a request that is not known.
    pub(crate) fn of_response(runner: Runner) -> Arc<Self> {
        Self::new(Some(runner), true, Phase::Open, |_| {})
    }

    /// A queue with no response to wait for.
    pub(crate) fn of_no_request(runner: Runner) -> Arc<Self> {
        Self::new(Some(runner), true, Phase::Idle, |_| {})
    }

    pub(super) fn new(
        runner: Option<Runner>,
        multiplexed: bool,
        phase: Phase,
        set_up: impl FnOnce(&mut Self),
    ) -> Arc<Self> {
        let arrived = Instant::now();
        let mut queue = pool::take().unwrap_or_else(|| Self::blank(arrived));
        if let Some(queue) = Arc::get_mut(&mut queue) {
            queue.runner = runner;
            queue.multiplexed = multiplexed;
            queue.arrived = arrived;
            get_mut(&mut queue.state).phase = phase;
            set_up(queue);
        }
        queue
    }

    pub(super) fn blank(arrived: Instant) -> Arc<Self> {
        Arc::new(Self {
            runner: None,
            request: RequestLine::default(),
            has_request: false,
            multiplexed: true,
            arrived,
            outcome: OnceLock::new(),
            state: Mutex::new(State {
                phase: Phase::Open,
                tasks: TaskList::default(),
                currents: Currents::default(),
                place: None,
                ended: None,
                stopped: false,
                taken: 0,
            }),
            #[cfg(feature = "jobs")]
            job_side: None,
        })
    }

    /// Keeps the queue for another request. One that has tasks, or that somebody else holds, comes back.
    #[inline]
    pub(crate) fn let_go(mut queue: Arc<Self>) -> Option<Arc<Self>> {
        // A look first: most queues that have tasks are still in the registry.
        if Arc::strong_count(&queue) == 1 && Arc::get_mut(&mut queue).is_some_and(Self::renew) {
            pool::keep(queue);
            return None;
        }
        Some(queue)
    }

    /// Makes a queue as good as new, if it is empty.
    #[inline]
    pub(super) fn renew(&mut self) -> bool {
        let state = get_mut(&mut self.state);
        if !state.tasks.is_empty() || !state.currents.is_empty() || state.place.is_some() {
            return false;
        }
        state.currents.forget_places();
        state.phase = Phase::Open;
        state.ended = None;
        state.stopped = false;
        self.outcome = OnceLock::new();
        self.runner = None;
        self.request.forget();
        self.has_request = false;
        #[cfg(feature = "jobs")]
        {
            self.job_side = None;
        }
        true
    }
}
