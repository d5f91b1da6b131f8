//! [`Owner`]: a runner, as its queues see it. [`Schedule`]: how queues reach the executor.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::{Queue, ready::Ready};
use crate::{
    observe::limit_use::LimitUse,
    shared::{Shared, registry::Registry, settings::Settings},
    util::sync::{Mutex, OnceLock},
};

/// Runs ready batches.
pub(crate) trait Schedule: Send + Sync {
    /// Returns at once and calls no user code, as the caller may be a connection or a `Drop`.
    /// Dropping `ready` aborts its tasks.
    fn schedule(&self, ready: Ready);

    /// Returns how full the limits are that the executor keeps.
    fn limits(&self) -> Vec<LimitUse>;
}

pub(crate) struct Owner {
    pub(crate) shared: Shared,
    /// The queues that hold a task or are followed.
    pub(crate) queues: Registry<Queue>,
    pub(super) scheduler: Box<dyn Schedule>,
    /// The first runtime that the runner saw. It runs tasks if the queue's own runtime is gone or
    /// unknown, and the scheduling thread is on none.
    runtime: OnceLock<Handle>,
    /// The task that looks for slow responses.
    pub(super) watch: Mutex<Option<AbortHandle>>,
}

impl Owner {
    pub(crate) fn new(settings: Settings, scheduler: Box<dyn Schedule>) -> Self {
        Self {
            shared: Shared::new(settings),
            queues: Registry::default(),
            scheduler,
            runtime: OnceLock::new(),
            watch: Mutex::default(),
        }
    }

    /// Returns the current runtime, unless the settings name one. Remembers the first.
    #[inline]
    pub(super) fn remember_current_runtime(&self) -> Option<Handle> {
        if self.shared.settings.runtime.is_some() {
            return None;
        }
        let current = Handle::try_current().ok()?;
        if self.runtime.get().is_none() {
            let _ = self.runtime.set(current.clone());
        }
        Some(current)
    }

    /// Returns the runtime for work that belongs to no queue.
    #[cfg(feature = "jobs")]
    pub(crate) fn runtime(&self) -> Option<Handle> {
        let set = self.shared.settings.runtime.clone();
        set.or_else(|| self.remember_current_runtime())
            .or_else(|| self.first_runtime())
    }

    /// Returns how full the runner's limits are.
    pub(crate) fn limits(&self) -> Vec<LimitUse> {
        let limits = self.shared.limits();
        limits.chain(self.scheduler.limits()).collect()
    }

    pub(super) fn first_runtime(&self) -> Option<Handle> {
        self.runtime.get().cloned()
    }
}

impl Queue {
    /// Hands `ready` to the executor.
    pub(super) fn schedule(self: &Arc<Self>, ready: Ready, yields: bool) {
        if let Some(owner) = &self.owner {
            owner.scheduler.schedule(ready.yielding(yields));
        }
    }
}
