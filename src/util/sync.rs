//! The door to locks and atomics (but for those that only give out numbers), so that loom's can take their place.

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

/// Stands between counting what one did and looking whether somebody waits for it, and the other way round.
///
/// Sequentially consistent read-modify-writes order the two by themselves. loom takes them for acquire-release, and sees it only
/// by a fence.
#[inline]
pub(crate) fn fence_for_loom() {
    #[cfg(all(test, background_tasks_loom))]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Locks whatever a panic elsewhere left behind: no state guarded here is left half-written, as no user code runs under a
/// lock.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
