//! The door to locks and atomics, so that loom's can take their place. Counters that only give out
//! numbers go past it.

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

/// Stands between an update and a look at what another thread did: a counted end and the waiters,
/// or a new waiter and the counts.
///
/// Sequentially consistent read-modify-writes order the two by themselves. loom treats them as
/// acquire-release, and needs the fence.
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
