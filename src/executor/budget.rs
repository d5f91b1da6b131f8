//! How long one batch goes on before others get their turn. Keeps the promise "never on the connection" where many tasks follow
//! one another.

use std::{
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::task::yield_now;

/// How long one hop to the blocking pool serves tasks before the next one goes through the pool's own queue again: behind others
/// that wait for a thread, and not at all when the runtime is shutting down. By the system's clock, as Tokio's may be paused.
pub(super) const ON_THREAD: Duration = Duration::from_millis(10);

/// How many tasks a batch runs in one poll. Tokio looks for input and output after every 61 polls, whatever each took.
const TASKS: u32 = 32;

/// What a batch has for one poll. Tokio's own budget is for what its tasks wait for.
#[derive(Debug, Default)]
pub(super) struct Budget {
    tasks: u32,
}

impl Budget {
    /// The next task's turn is to come: whether others are to run before.
    #[inline]
    pub(super) fn is_used_up(&mut self) -> bool {
        self.tasks += 1;
        self.tasks > TASKS
    }

    /// Pending: this is woken when Tokio has looked for input and output.
    pub(super) fn give_way(cx: &mut Context<'_>) -> Poll<()> {
        pin!(yield_now()).poll(cx)
    }
}
