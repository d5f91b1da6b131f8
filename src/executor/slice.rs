//! [`Slice`]: how long one poll goes on. Keeps the promise "never on the connection" where many short tasks follow one another.
//!
//! Tokio looks for input and output after every 61 polls, whatever each took, and when nothing else is ready. So a worker that has
//! many batches ready looks after 61 of them, as it would after 61 tasks that were spawned.

use std::{
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{task::yield_now, time::Instant};

/// After so long others get their turn. It is long beside what that costs: a look at the system, and a wake-up.
const LONGEST: Duration = Duration::from_micros(50);

/// Between two looks at the clock so many tasks go by. Where no look was taken when the poll began, the first one begins the slice.
const TASKS_A_LOOK: u32 = 32;

/// What a poll has taken so far.
#[derive(Default)]
pub(crate) struct Slice {
    /// `None` until somebody has looked at the clock.
    since: Option<Instant>,
    tasks: u32,
}

impl Slice {
    pub(crate) fn since(now: Instant) -> Self {
        Self {
            since: Some(now),
            tasks: 0,
        }
    }

    /// True where others are to have their turn before the poll goes on.
    #[inline]
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let Some(since) = self.since else {
            self.since = Some(now);
            return false;
        };
        now.duration_since(since) >= LONGEST
    }

    /// So many tasks have gone by. Pending where others are to run first: this is woken when Tokio has looked for input and output. Ready
    /// with the time, where it was one to look at the clock.
    #[inline]
    pub(crate) fn poll_others(
        &mut self,
        tasks: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Instant>> {
        self.tasks += tasks;
        if self.tasks % TASKS_A_LOOK != 0 {
            return Poll::Ready(None);
        }
        let now = Instant::now();
        if self.is_over(now) {
            ready!(pin!(yield_now()).poll(cx));
        }
        Poll::Ready(Some(now))
    }
}
