//! [`Feed`]: makes one snapshot a second for all viewers. [`Events`]: one viewer's stream.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::snapshot;
use crate::{
    Runner,
    util::{
        sync::{Mutex, lock},
        timer::Pauses,
    },
};

/// The time between two events of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

/// The age at which a snapshot is replaced. It is less than [`INTERVAL`], so that a stream whose
/// timer fires early does not get the same snapshot twice.
const FRESH: Duration = Duration::from_millis(900);

pub(super) struct Feed {
    runner: Runner,
    allows_cancel: bool,
    latest: Mutex<Option<(Instant, Bytes)>>,
}

impl Feed {
    pub(super) fn new(runner: Runner, allows_cancel: bool) -> Self {
        Self {
            runner,
            allows_cancel,
            latest: Mutex::default(),
        }
    }

    pub(super) fn runner(&self) -> &Runner {
        &self.runner
    }

    pub(super) fn allows_cancel(&self) -> bool {
        self.allows_cancel
    }

    pub(super) fn json(&self) -> Vec<u8> {
        snapshot::json(&self.runner, self.allows_cancel)
    }

    /// Returns the current snapshot as an event. The lock is held while a new one is made, so that
    /// concurrent callers wait for it and do not make their own.
    fn event(&self) -> Bytes {
        let mut latest = lock(&self.latest);
        let now = Instant::now();
        if let Some((made, event)) = &*latest {
            let is_fresh = now.duration_since(*made) < FRESH;
            if is_fresh && !self.runner.is_shutting_down() {
                return event.clone();
            }
        }
        let mut event = b"data: ".to_vec();
        event.extend(self.json()); // it has no line breaks
        event.extend(b"\n\n");
        let event = Bytes::from(event);
        *latest = Some((now, event.clone()));
        event
    }
}

/// A stream of events. Its last event shows that the shutdown has begun. The stream then ends,
/// because a graceful shutdown of the server waits for open responses.
pub(super) struct Events {
    feed: Arc<Feed>,
    /// The wait for the next event. `None` before the first event.
    wait: Option<Pin<Box<dyn Future<Output = Pauses> + Send>>>,
    is_over: bool,
}

impl Events {
    pub(super) fn new(feed: Arc<Feed>) -> Self {
        Self {
            feed,
            wait: None,
            is_over: false,
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let pauses = match &mut self.wait {
            Some(wait) => ready!(wait.as_mut().poll(cx)),
            None => Pauses::default(),
        };
        let runner = self.feed.runner().clone();
        self.is_over = runner.is_shutting_down();
        self.wait = Some(Box::pin(pause(pauses, runner)));
        Poll::Ready(Some(self.feed.event()))
    }
}

async fn pause(mut pauses: Pauses, runner: Runner) -> Pauses {
    {
        let mut over = pin!(pauses.pause(INTERVAL));
        let mut shutting_down = pin!(runner.shutting_down());
        poll_fn(|cx| match over.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => shutting_down.as_mut().poll(cx),
        })
        .await;
    }
    pauses
}
