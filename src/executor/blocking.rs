//! A batch's way to the blocking pool.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::batch::Batch;
use crate::util::{
    contain::contain,
    sync::{Mutex, lock},
};

/// Where the system has no thread to give, it is asked again after this time.
const ASKS_AGAIN: Duration = Duration::from_millis(500);

/// Hands `batch` to the blocking pool. Where that is shutting down, its tasks end aborted.
pub(super) fn launch(batch: Batch, runtime: &Handle) {
    let slot = Arc::new(Mutex::new(Some(batch)));
    let of_thread = Arc::clone(&slot);
    let spawned = contain(|| {
        runtime.spawn_blocking(move || {
            let batch = lock(&of_thread).take();
            batch.map(Batch::run_on_thread)
        })
    });
    // Tokio panics when the pool has no thread and the system none to give. Its queue has the closure then, perhaps for ever.
    if spawned.is_err() {
        let batch = lock(&slot).take();
        if let Some(batch) = batch {
            launch_again(batch, runtime);
        }
    }
}

/// Where there is no timer, or the runtime goes away meanwhile, the tasks of `batch` end aborted.
fn launch_again(batch: Batch, runtime: &Handle) {
    runtime.spawn(async move {
        if let Ok(pause) = contain(|| tokio::time::sleep(ASKS_AGAIN)) {
            pause.await;
            batch.launch();
        }
    });
}
