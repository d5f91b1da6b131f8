//! Runs ready batches within the runner's limits: async tasks on the runtime, blocking tasks on
//! its blocking pool. Keeps the promises "never on the connection", "isolation" and "any runtime".
//!
//! A [`Batch`] is a task of the runtime, or a closure on the blocking pool. Tokio schedules both.
//! This room uses `queue` and below.

mod batch;
mod blocking;
mod budget;
pub(crate) mod execution;
mod limits;
mod running_task;
mod spawn;
mod supervised;

use std::sync::Arc;

use self::{batch::Batch, limits::Limits};
use crate::{
    observe::limit_use::LimitUse,
    queue::{owner::Schedule, ready::Ready},
    shared::settings::Settings,
};

/// Runs the batches of one runner.
pub(crate) struct Executor {
    /// `None` without limits.
    limits: Option<Arc<Limits>>,
}

impl Executor {
    pub(crate) fn new(settings: &Settings) -> Self {
        let limits = settings.is_limited().then(|| Limits::new(settings));
        Self {
            limits: limits.map(Arc::new),
        }
    }

    fn batch(&self, ready: Ready) -> Batch {
        let limits = self.limits.as_ref().filter(|_| ready.is_limited());
        Batch::new(ready, limits.cloned())
    }

    /// Makes a batch for a loom model, which polls it itself.
    #[cfg(all(test, background_tasks_loom))]
    pub(crate) fn on_worker(&self, ready: Ready) -> batch::OnWorker {
        batch::OnWorker::new(self.batch(ready), None)
    }
}

impl Schedule for Executor {
    fn schedule(&self, ready: Ready) {
        self.batch(ready).launch();
    }

    fn limits(&self) -> Vec<LimitUse> {
        let limits = self.limits.as_ref();
        limits.map(|limits| limits.uses()).unwrap_or_default()
    }
}
