//! The door to locks, atomics (but for those that only give out numbers), and a clock by which others decide what to do, so that
//! loom's can take their place:
//! `RUSTFLAGS="--cfg background_tasks_loom" cargo test --lib models`.

use std::time::Instant;

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

/// The time, by which it is decided what comes next.
#[cfg(not(all(test, background_tasks_loom)))]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// In a model it stands still: loom plays an execution again, up to where the next one differs, and never ends where it went another
/// way the first time as it was slow.
#[cfg(all(test, background_tasks_loom))]
pub(crate) fn now() -> Instant {
    static STANDS_STILL: OnceLock<Instant> = OnceLock::new();
    *STANDS_STILL.get_or_init(Instant::now)
}

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
