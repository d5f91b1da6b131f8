//! [`PollInterval`]: has an idle worker of apalis look for jobs.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::backend::ext::poll_strategy::{PollSnapshot, PollStrategy};
use tokio::time::{Sleep, sleep};

/// Has an idle worker of apalis look for jobs again and again, for
/// [`poll_with_strategy`](apalis_core::backend::ext::BackendExt::poll_with_strategy).
///
/// Without it, a worker finds a job that another process has stored at its next heartbeat, which is
/// 30 seconds by default. apalis' own `poll_with_interval` is for a worker that something else wakes,
/// too: once its time is over, it waits for that, or for the heartbeat.
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
    /// Makes a strategy that wakes its worker after each `every`.
    ///
    /// # Panics
    ///
    /// If `every` is zero. The worker's runtime must have a timer: Tokio panics otherwise.
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
        // The sleep that is left pending wakes the worker. One that was only made would not.
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

/// The clone's time begins when it is first polled.
impl Clone for PollInterval {
    fn clone(&self) -> Self {
        Self::new(self.every)
    }
}
