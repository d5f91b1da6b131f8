//! [`Limits`]: how many tasks run at once over all requests. Tokio's semaphores are fair: first
//! come, first served.
//!
//! A blocking task takes a permit of `max_blocking` first, and then one of `max_running`. Holding
//! the first while it waits for the second delays no other task. Any other blocking task also
//! needs a running permit, and would wait behind it for one.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::{observe::limit_use::LimitUse, shared::settings::Settings, task::kind::TaskKind};

pub(crate) struct Limits {
    running: Option<Places>,
    blocking: Option<Places>,
}

struct Places {
    limit: usize,
    free: Arc<Semaphore>,
}

/// A place for one running task. Dropping the last handle frees the place.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    _blocking: Option<OwnedSemaphorePermit>,
    _running: Option<OwnedSemaphorePermit>,
}

/// A task's wait for its permit. Dropping it gives up the task's position in the queue.
pub(crate) struct Acquire {
    blocking: Option<PollSemaphore>,
    running: Option<PollSemaphore>,
    permit: Permit,
}

impl Limits {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            running: settings.max_running.map(Places::new),
            blocking: settings.max_blocking.map(Places::new),
        }
    }

    pub(crate) fn uses(&self) -> Vec<LimitUse> {
        let running = self
            .running
            .as_ref()
            .map(|places| places.used("max_running"));
        let blocking = self
            .blocking
            .as_ref()
            .map(|places| places.used("max_blocking"));
        running.into_iter().chain(blocking).collect()
    }

    pub(crate) fn acquire(&self, kind: TaskKind) -> Box<Acquire> {
        let blocking = self
            .blocking
            .as_ref()
            .filter(|_| kind == TaskKind::Blocking);
        Box::new(Acquire {
            blocking: blocking.map(Places::acquire),
            running: self.running.as_ref().map(Places::acquire),
            permit: Permit::default(),
        })
    }
}

impl Places {
    fn new(limit: usize) -> Self {
        let free = Semaphore::new(limit.min(Semaphore::MAX_PERMITS));
        Self {
            limit,
            free: Arc::new(free),
        }
    }

    fn acquire(&self) -> PollSemaphore {
        PollSemaphore::new(Arc::clone(&self.free))
    }

    fn used(&self, name: &'static str) -> LimitUse {
        let limit = self.limit;
        let places = limit.min(Semaphore::MAX_PERMITS);
        LimitUse {
            name,
            used: places.saturating_sub(self.free.available_permits()),
            limit,
        }
    }
}

impl Acquire {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arc<Permit>> {
        if let Some(blocking) = &mut self.blocking {
            // Neither semaphore is ever closed.
            self.permit._blocking = ready!(blocking.poll_acquire(cx));
            self.blocking = None;
        }
        if let Some(running) = &mut self.running {
            self.permit._running = ready!(running.poll_acquire(cx));
            self.running = None;
        }
        Poll::Ready(Arc::new(mem::take(&mut self.permit)))
    }
}
