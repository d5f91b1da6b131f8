//! Warns of responses that stay open while tasks await their end.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::{Phase, Queue, owner::Owner};
use crate::{
    observe::report,
    util::{sync::lock, timer::Pauses},
};

impl Owner {
    /// Starts the task that looks for slow responses, unless it already runs.
    fn watch_responses(self: &Arc<Self>) {
        let Some(age) = self.shared.settings.slow_response else {
            return;
        };
        let mut watch = lock(&self.watch);
        let is_watched = watch.as_ref().is_some_and(|watch| !watch.is_finished());
        if let (false, Ok(runtime)) = (is_watched, Handle::try_current()) {
            let watching = runtime.spawn(watch_for(Arc::downgrade(self), age));
            *watch = Some(watching.abort_handle());
        }
    }
}

/// Looks four times per `age`, until the runner is gone or closed.
async fn watch_for(owner: Weak<Owner>, age: Duration) {
    let mut pauses = Pauses::default();
    loop {
        pauses.pause(age / 4).await;
        let Some(owner) = owner.upgrade().filter(|owner| !owner.queues.is_closed()) else {
            return;
        };
        let now = Instant::now();
        for queue in owner.queues.entries() {
            queue.warn_if_slow(now, age);
        }
    }
}

impl Queue {
    /// Starts the search for slow responses, if the settings ask for it.
    #[inline]
    pub(super) fn watch_responses(&self) {
        if let Some(owner) = &self.owner {
            owner.watch_responses();
        }
    }

    /// Warns once if the response has been open for at least `age` while tasks await its end.
    fn warn_if_slow(&self, now: Instant, age: Duration) {
        let open_for = now.duration_since(self.arrived);
        let mut state = lock(&self.state);
        let awaits = matches!(state.phase, Phase::Open) && !self.is_held && !state.tasks.is_empty();
        if !awaits || open_for < age || state.is_warned_of {
            return;
        }
        state.is_warned_of = true;
        let names = state.tasks.names();
        drop(state);
        report::slow_response(self.request.as_ref(), open_for, &names);
    }
}
