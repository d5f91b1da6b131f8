//! [`Owner`]: a runner, as its queues see it; and [`Schedule`], by which they reach whoever runs their tasks.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{Queue, ready::Ready};
use crate::{
    shared::{Shared, registry::Registry, settings::Settings},
    util::sync::OnceLock,
};

/// Runs what is ready.
pub(crate) trait Schedule: Send + Sync {
    /// Returns at once, and calls no user code: the caller is a connection, or a `Drop`. Dropping `ready` ends its tasks aborted.
    fn schedule(&self, ready: Ready);
}

pub(crate) struct Owner {
    pub(crate) shared: Shared,
    /// Those that hold a task.
    pub(crate) queues: Registry<Queue>,
    pub(super) scheduler: Box<dyn Schedule>,
    /// For tasks that come from a thread without a runtime, to a queue that was made on such a thread.
    runtime: OnceLock<Handle>,
}

impl Owner {
    pub(crate) fn new(settings: Settings, scheduler: Box<dyn Schedule>) -> Self {
        Self {
            shared: Shared::new(settings),
            queues: Registry::default(),
            scheduler,
            runtime: OnceLock::new(),
        }
    }

    /// The current runtime, if there is one and none is set.
    #[inline]
    pub(super) fn current_runtime(&self) -> Option<Handle> {
        if self.shared.settings.runtime.is_some() {
            return None;
        }
        let current = Handle::try_current().ok()?;
        if self.runtime.get().is_none() {
            let _ = self.runtime.set(current.clone());
        }
        Some(current)
    }

    /// For what is of no queue.
    #[cfg(feature = "jobs")]
    pub(crate) fn runtime(&self) -> Option<Handle> {
        let set = self.shared.settings.runtime.clone();
        set.or_else(|| self.current_runtime())
            .or_else(|| self.first_runtime())
    }

    pub(super) fn first_runtime(&self) -> Option<Handle> {
        self.runtime.get().cloned()
    }
}

impl Queue {
    /// Hands `ready` to whoever runs it.
    pub(super) fn schedule(self: &Arc<Self>, ready: Ready, yields: bool) {
        if let Some(owner) = &self.owner {
            owner.scheduler.schedule(ready.yielding(yields));
        }
    }
}
