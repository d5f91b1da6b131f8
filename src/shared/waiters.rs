//! [`Waiters`]: callers that wait in [`Runner::idle`](crate::Runner::idle) or at shutdown until
//! tasks have ended.
//!
//! 1. A waiter registers in `count` before it reads the counters. A thread counts an end before it
//!    reads `count`. All four steps are in one total order, so at least one of the two sees the
//!    other.

use tokio::sync::Notify;

use crate::util::{
    contain::woken_contained,
    sync::{AtomicUsize, Ordering, fence_for_loom},
};

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    notify: Notify,
    /// How many callers wait. If none waits, a task's end costs one load.
    count: AtomicUsize,
}

impl Waiters {
    /// Waits until `is_over` returns true. Only a thread that then calls
    /// [`notify_if`](Self::notify_if) may make it true.
    pub(crate) async fn until(&self, is_over: impl Fn() -> bool) {
        let _registered = Registered::new(&self.count);
        loop {
            // `notified` receives every wake-up from here on, so none is lost between the check
            // and the wait.
            let notified = self.notify.notified();
            fence_for_loom();
            if is_over() {
                return;
            }
            woken_contained(notified).await;
        }
    }

    /// Wakes all waiters, if there are any and `may_be_over` returns true.
    #[inline]
    pub(crate) fn notify_if(&self, may_be_over: impl FnOnce() -> bool) {
        fence_for_loom();
        if self.count.load(Ordering::SeqCst) > 0 && may_be_over() {
            self.notify.notify_waiters(); // every waiter's waker is contained
        }
    }
}

/// Counts a waiter for as long as this lives.
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
