//! [`Timer`]: Tokio's timer, on any runtime. [`elapse`] and [`within`] work without a timer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::mpsc::{RecvTimeoutError, channel},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::coop,
    time::{Sleep, sleep},
};

use super::{
    contain::{contain, woken_contained},
    panic::TaskPanic,
};

/// Contains the panics of Tokio's timer. Tokio panics if the runtime has no timer, and after the
/// runtime is gone. Neither can be checked beforehand.
pub(crate) struct Timer(Pin<Box<Sleep>>);

/// Why there is no timer.
#[derive(Debug)]
pub(crate) enum NoTimer {
    /// The caller is not within a runtime.
    NoRuntime,
    /// Tokio panicked.
    Panicked(TaskPanic),
}

impl Timer {
    pub(crate) fn new(time: Duration) -> Result<Self, NoTimer> {
        if Handle::try_current().is_err() {
            return Err(NoTimer::NoRuntime);
        }
        let sleep = contain(|| Box::pin(sleep(time)));
        sleep.map(Self).map_err(NoTimer::Panicked)
    }

    /// Checks the clock even if the task has used up its cooperative budget.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NoTimer>> {
        match contain(|| pin!(coop::unconstrained(self.0.as_mut())).poll(cx)) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(NoTimer::Panicked(panic))),
        }
    }
}

/// The longest time to wait for: about a century. A much longer one overflows an `Instant`, or the
/// clock of a store.
#[cfg(any(feature = "jobs", feature = "tracing"))]
pub(crate) const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Waits for `time` on the runtime's timer, or on a thread if there is no timer. Returns false in
/// the second case.
pub(crate) async fn elapse(time: Duration) -> bool {
    let begun = Instant::now();
    let why = match Timer::new(time) {
        Ok(mut timer) => match woken_contained(poll_fn(|cx| timer.poll(cx))).await {
            Ok(()) => return true,
            Err(why) => why,
        },
        Err(why) => why,
    };
    if let NoTimer::Panicked(why) = why {
        warn(&why);
    }
    elapse_on_a_thread(time.saturating_sub(begun.elapsed())).await;
    false
}

/// Repeated waits. If there is no timer, this logs only one warning.
#[derive(Default)]
pub(crate) struct Pauses {
    has_no_timer: bool,
}

impl Pauses {
    pub(crate) async fn pause(&mut self, time: Duration) {
        if self.has_no_timer {
            elapse_on_a_thread(time).await;
        } else {
            self.has_no_timer = !elapse(time).await;
        }
    }
}

/// Waits for `future`, at most for `limit`. Returns `None` if the limit passes first.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut over) = (pin!(future), pin!(elapse(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => over.as_mut().poll(cx).map(|_| None),
    })
    .await
}

async fn elapse_on_a_thread(time: Duration) {
    let (is_over, over) = oneshot::channel::<()>();
    // This future owns the sender. Dropping the future drops it, and the thread ends.
    let (_waiting, waits) = channel::<()>();
    let spawned = thread::Builder::new().spawn(move || {
        if waits.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            let _ = is_over.send(());
        }
    });
    if spawned.is_ok() {
        let _ = over.await;
    }
}

fn warn(why: &TaskPanic) {
    #[cfg(feature = "tracing")]
    let _ = contain(|| {
        tracing::warn!(
            target: "tower_background_tasks",
            "the runtime has no timer, so a thread keeps the time: call `enable_time` on its builder ({why})"
        );
    });
    #[cfg(not(feature = "tracing"))]
    let _ = why;
}
