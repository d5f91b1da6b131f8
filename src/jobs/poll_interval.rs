//! [`PollInterval`]: makes an idle apalis worker look for jobs.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::backend::ext::poll_strategy::{PollSnapshot, PollStrategy};
use tokio::time::{Sleep, sleep};

/// Makes an idle apalis worker look for jobs at a fixed interval, for
/// [`poll_with_strategy`](apalis_core::backend::ext::BackendExt::poll_with_strategy).
///
/// Without this, a worker finds another process's job only at its next heartbeat, by default every
/// 30 seconds. apalis' own `poll_with_interval` suits a worker that something else also wakes:
/// after one interval without a job, the worker waits for that or for the heartbeat.
///
/// ```
/// use std::time::Duration;
/// use apalis_core::backend::{dequeue::VecDequeBackend, ext::BackendExt};
/// use tower_background_tasks::{PollInterval, StoredJob};
///
/// let storage = VecDequeBackend::<StoredJob>::new();
/// let backend = storage.poll_with_strategy(PollInterval::new(Duration::from_millis(100)));
/// # drop(backend);
/// ```
#[derive(Debug)]
pub struct PollInterval {
    every: Duration,
    /// `None` before the first poll.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl PollInterval {
    /// Makes a strategy that wakes its worker whenever `every` has passed.
    ///
    /// # Panics
    ///
    /// If `every` is zero. Later, Tokio panics if the worker's runtime has no timer.
    #[track_caller]
    pub fn new(every: Duration) -> Self {
        assert!(
            !every.is_zero(),
            "a worker that polls every 0 s does nothing else: give it some milliseconds"
        );
        Self { every, sleep: None }
    }
}

impl PollStrategy for PollInterval {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut is_over = false;
        // Only a sleep that has been polled wakes the worker. So the loop ends with a pending one.
        loop {
            let next = || Box::pin(sleep(self.every));
            let sleep = self.sleep.get_or_insert_with(next);
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
            (is_over, self.sleep) = (true, None);
        }
        if is_over {
            Poll::Ready(Some(()))
        } else {
            Poll::Pending
        }
    }
}

/// The clone's interval begins at its first poll.
impl Clone for PollInterval {
    fn clone(&self) -> Self {
        Self::new(self.every)
    }
}
