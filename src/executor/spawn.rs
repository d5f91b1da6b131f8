//! Hands a batch to the runtime. For tokio-console, a batch has the name and location of its first
//! task. Tokio supports names only under `tokio_unstable`.

use std::io;

use tokio::runtime::Handle;

use super::batch::{Batch, OnWorker};

/// The name that tokio-console shows.
pub(super) struct ConsoleName(#[cfg(all(tokio_unstable, feature = "tracing"))] String);

impl ConsoleName {
    pub(super) fn of(batch: &Batch) -> Self {
        #[cfg(all(tokio_unstable, feature = "tracing"))]
        {
            let label = batch.first_label();
            let name = label.map(|label| format!("{} ({})", label.name(), label.location));
            Self(name.unwrap_or_default())
        }
        #[cfg(not(all(tokio_unstable, feature = "tracing")))]
        {
            let _ = batch;
            Self()
        }
    }
}

/// Spawns a batch on a worker.
pub(super) fn spawn(batch: Batch, runtime: &Handle, other: Option<Handle>) {
    let name = ConsoleName::of(&batch);
    let task = OnWorker::new(batch, other);
    #[cfg(all(tokio_unstable, feature = "tracing"))]
    let _ = tokio::task::Builder::new()
        .name(&name.0)
        .spawn_on(task, runtime);
    #[cfg(not(all(tokio_unstable, feature = "tracing")))]
    {
        let ConsoleName() = name;
        runtime.spawn(task);
    }
}

/// Spawns `run` on the blocking pool. If the system has no thread, Tokio panics, or returns an
/// error under `tokio_unstable`.
pub(super) fn spawn_blocking(
    name: &ConsoleName,
    runtime: &Handle,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    #[cfg(all(tokio_unstable, feature = "tracing"))]
    tokio::task::Builder::new()
        .name(&name.0)
        .spawn_blocking_on(run, runtime)?;
    #[cfg(not(all(tokio_unstable, feature = "tracing")))]
    {
        let ConsoleName() = name;
        runtime.spawn_blocking(run);
    }
    Ok(())
}
