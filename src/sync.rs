//! The only door to locks and atomics, so that a model checker can take their place.

pub(crate) use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Locks whatever a panic elsewhere left behind: no state guarded here is left half-written, as no user code runs under a
/// lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
