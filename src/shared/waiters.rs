//! [`Waiters`]: those who wait until nothing is left, in [`Runner::idle`](crate::Runner::idle) and at a shutdown.
//!
//! 1. A waiter registers in `count` before it looks at the counters; an end is counted before it looks at `count`. Both in one
//!    total order: one of the two sees the other.

use tokio::sync::Notify;

use crate::util::{
    contain::woken_contained,
    sync::{AtomicUsize, Ordering, fence_for_loom},
};

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    notify: Notify,
    /// How many wait, so that without any the end of a task costs one read.
    count: AtomicUsize,
}

impl Waiters {
    /// Waits until `is_over`, which only what calls [`notify_if`](Self::notify_if) can bring about.
    pub(crate) async fn until(&self, is_over: impl Fn() -> bool) {
        let _registered = Registered::new(&self.count);
        loop {
            let notified = self.notify.notified();
            fence_for_loom();
            if is_over() {
                return;
            }
            woken_contained(notified).await;
        }
    }

    /// Wakes all who wait, if there are any and `may_be_over`.
    #[inline]
    pub(crate) fn notify_if(&self, may_be_over: impl FnOnce() -> bool) {
        fence_for_loom();
        if self.count.load(Ordering::SeqCst) > 0 && may_be_over() {
            self.notify.notify_waiters(); // all of them wait under a contained waker
        }
    }
}

/// Counts one who waits, for as long as this lives.
struct Registered<'a>(&'a AtomicUsize);

impl<'a> Registered<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
