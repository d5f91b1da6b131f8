//! How long a batch runs before it yields. Keeps the promise "never on the connection" when many
//! tasks follow one another.

use std::{
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::task::yield_now;

/// How long a batch keeps a blocking thread before it goes through the pool's queue again. There
/// it waits behind others. If the runtime is shutting down, its tasks are aborted there. The
/// system's clock measures this, as Tokio's clock may be paused.
pub(super) const ON_THREAD: Duration = Duration::from_millis(10);

/// How many tasks a batch runs in one poll. Tokio checks for I/O after every 61 polls, however
/// long each takes.
const TASKS: u32 = 32;

/// Limits one poll of a batch. Tokio's own budget limits the resources that tasks poll.
#[derive(Debug, Default)]
pub(super) struct Budget {
    tasks: u32,
}

impl Budget {
    /// Counts the next task. Returns true if the batch must yield before it.
    #[inline]
    pub(super) fn is_used_up(&mut self) -> bool {
        self.tasks += 1;
        self.tasks > TASKS
    }

    /// Returns `Pending`. Tokio wakes the batch after it has checked for I/O.
    pub(super) fn give_way(cx: &mut Context<'_>) -> Poll<()> {
        pin!(yield_now()).poll(cx)
    }
}
