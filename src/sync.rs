//! The door to locks and atomics, but for those that only give out numbers, so that loom can take their place:
//! `RUSTFLAGS="--cfg background_tasks_loom" cargo test --lib models`.

pub(crate) use std::sync::OnceLock;

#[cfg(not(all(test, background_tasks_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

#[cfg(all(test, background_tasks_loom))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

#[cfg(not(all(test, background_tasks_loom)))]
pub(crate) use std::thread::yield_now;

#[cfg(all(test, background_tasks_loom))]
pub(crate) use loom::thread::yield_now;

/// Between counting what one did and looking whether somebody waits for it, and the other way round. Sequentially consistent
/// read-modify-writes order the two by themselves; loom takes them for acquire-release, and wants a fence to see it.
pub(crate) fn fence_in_models() {
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

/// Of a lock that nobody else can have.
#[inline]
pub(crate) fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex
        .get_mut()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
