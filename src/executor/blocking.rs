//! Moving a batch to the blocking pool.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    batch::Batch,
    spawn::{ConsoleName, spawn_blocking},
};
use crate::util::{
    contain::contain,
    sync::{Mutex, lock},
};

/// How long a batch waits before it tries again, if the system has no thread.
const ASKS_AGAIN: Duration = Duration::from_millis(500);

/// Hands `batch` to the blocking pool of `runtime`, or to `other` if that one is gone. Without
/// either, the batch's tasks are aborted.
pub(super) fn launch(batch: Batch, runtime: &Handle, other: Option<Handle>) {
    let name = ConsoleName::of(&batch);
    let slot = Arc::new(Mutex::new(Some(batch)));
    let of_thread = Arc::clone(&slot);
    let spawned = contain(|| {
        spawn_blocking(&name, runtime, move || {
            let batch = lock(&of_thread).take();
            batch.map(Batch::run_on_thread).unwrap_or_default();
        })
    });
    // Tokio panics if the pool has no thread and cannot start one. The pool's queue then keeps the
    // closure, perhaps forever. So this thread takes the batch back out of the slot.
    if !matches!(spawned, Ok(Ok(()))) {
        let batch = lock(&slot).take();
        if let Some(batch) = batch {
            launch_again(batch, runtime);
        }
        return;
    }
    // A pool that has shut down drops the closure within the spawning call.
    if Arc::strong_count(&slot) == 1 {
        let batch = lock(&slot).take();
        if let (Some(batch), Some(other)) = (batch, other) {
            batch.launch_on(&other, None);
        }
    }
}

/// Tries again after a pause. If there is no timer, or if the runtime goes away meanwhile, the
/// tasks of `batch` are aborted.
fn launch_again(batch: Batch, runtime: &Handle) {
    runtime.spawn(async move {
        if let Ok(pause) = contain(|| tokio::time::sleep(ASKS_AGAIN)) {
            pause.await;
            batch.launch();
        }
    });
}
