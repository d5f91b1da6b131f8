//! Locks and atomics, which loom's replace in a model. Counters that only hand out numbers do not
//! use this module.

pub(crate) use std::sync::OnceLock;

#[cfg(not(all(test, background_tasks_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(all(test, background_tasks_loom))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// Separates a write from a read of what another thread writes. One thread counts an end and then
/// reads the waiters. The other registers a waiter and then reads the counts.
///
/// Sequentially consistent read-modify-writes need no fence here. loom treats them as
/// acquire-release, so it needs one.
#[inline]
pub(crate) fn fence_for_loom() {
    #[cfg(all(test, background_tasks_loom))]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Locks the mutex even if it is poisoned. No user code runs under a lock, so a panic leaves no
/// state half-written.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
