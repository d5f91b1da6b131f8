//! A worker of apalis', on any of the three: `build(jobs)`, and how many run at once.

use apalis::layers::WorkerBuilderExt;
use apalis_core::{
    backend::{
        Backend, BackendConfig, WireFormatBackend, finalize::Durable, persistence::TaskPersistLayer,
    },
    error::WorkerError,
    task::Task,
    worker::builder::WorkerBuilder,
};
use apalis_sqlite::JsonCodec;
use serde_json::Value;
use tower_background_tasks::{Jobs, Runner, StoredJob};

use crate::Warehouse;

/// Runs one worker until `runner` shuts down, or until its store fails.
pub(super) async fn run_worker<B>(
    name: &str,
    backend: B,
    max_running: usize,
    jobs: Jobs<Warehouse>,
    runner: Runner,
) -> Result<(), WorkerError>
where
    B: Backend<Task = Task<Vec<u8>>>
        + BackendConfig<
            Args = StoredJob,
            Kind = Durable,
            Layer = TaskPersistLayer<JsonCodec<Value>, Value>,
        > + WireFormatBackend<Codec = JsonCodec<Vec<u8>>, Compact = Vec<u8>>
        + Send
        + Unpin
        + 'static,
{
    let shutdown = async move {
        runner.shutting_down().await;
        Ok::<_, WorkerError>(())
    };
    WorkerBuilder::new(name)
        .backend(backend)
        .concurrency(max_running)
        .build(jobs)
        .run_until(shutdown)
        .await
}
