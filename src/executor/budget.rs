//! How long one batch goes on before others get their turn. Keeps the promise "never on the connection" where many tasks follow
//! one another.

use std::{
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{task::yield_now, time::Instant};

/// How long one hop to the blocking pool serves tasks before the next one goes through the pool's own queue again: behind others
/// that wait for a thread, and not at all when the runtime is shutting down. By the system's clock, as Tokio's may be paused.
pub(super) const ON_THREAD: Duration = Duration::from_millis(10);

/// How long a batch holds its worker. It is long beside what giving way costs: a look at the system, and a wake-up.
const ON_WORKER: Duration = Duration::from_micros(50);

/// The time that a batch has for one poll. Tokio's own budget holds beside it, also where the clock is paused.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the first task of this poll began, or ended.
    since: Option<Instant>,
}

impl Budget {
    pub(super) fn is_used_up(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        now.duration_since(since) >= ON_WORKER
    }

    /// Pending: this is woken when Tokio has looked for input and output.
    pub(super) fn give_way(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.since = None;
        pin!(yield_now()).poll(cx)
    }

    pub(super) fn renew(&mut self) {
        self.since = None;
    }
}
