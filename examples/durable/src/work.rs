//! The worker: apalis' own, with its retries and its layers.

use std::{process, sync::Arc, time::Duration};

use apalis::layers::{
    WorkerBuilderExt,
    retry::{
        BackoffRetryPolicy, HasherRng, RetryPolicy,
        backoff::{ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    },
};
use apalis_core::{
    backend::{
        Backend, BackendConfig, WireFormatBackend, finalize::Durable, persistence::TaskPersistLayer,
    },
    error::{AbortError, WorkerError},
    task::{Task, attempt::Attempt, data::Data},
    worker::builder::WorkerBuilder,
};
use apalis_sqlite::JsonCodec;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tower_background_tasks::{BoxError, Jobs, RunJobError, Runner, StoredJob};
use tracing::{error, warn};

use crate::{
    Engine, Settings,
    progress::{self, Retried},
    runner,
    warehouse::Warehouse,
};

/// A job that has failed this often is dead: kept in the store, and tried no more.
pub(crate) const MAX_ATTEMPTS: usize = 5;

/// What the function of a worker needs.
#[derive(Clone)]
pub(crate) struct Work {
    jobs: Jobs<Warehouse>,
    retried: Arc<Retried>,
    max_running: usize,
    version_pause: Duration,
    runner: Runner,
}

/// Ships orders until `runner` shuts down, whatever becomes of the store in between.
/// A job that does not end in time is run by another worker.
pub(crate) async fn work(
    settings: &Settings,
    engine: &Engine,
    runner: &Runner,
) -> Result<(), BoxError> {
    let retried = Arc::new(Retried::default());
    let work = Work {
        jobs: runner::jobs(Warehouse::open(&settings.shipped)?),
        retried: Arc::clone(&retried),
        max_running: settings.max_running,
        version_pause: settings.version_pause,
        runner: runner.clone(),
    };
    tokio::select! {
        () = work_on(engine, &work) => {}
        () = progress::of_store(engine, &retried) => {}
    }
    Ok(())
}

/// A worker of apalis' ends when its store fails, so another takes its place. Its name must be new: the store still waits for the
/// jobs of the old one, until it has missed its heartbeats.
async fn work_on(engine: &Engine, work: &Work) {
    for start in 0.. {
        let name = format!("worker-{}-{start}", process::id());
        match engine.work(&name, work).await {
            Ok(()) => return,
            Err(error) => println!("The worker ended: {error}; another starts in a second"),
        }
        if timeout(Duration::from_secs(1), work.runner.shutting_down())
            .await
            .is_ok()
        {
            return;
        }
    }
}

/// Runs one worker until its runner shuts down, or until its store fails.
pub(crate) async fn run_worker<B>(name: &str, backend: B, work: &Work) -> Result<(), WorkerError>
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
    let runner = work.runner.clone();
    WorkerBuilder::new(name)
        .backend(backend)
        .data(work.clone())
        .concurrency(work.max_running)
        .retry(retry_policy())
        .build(run_job)
        .run_until(async move {
            runner.shutting_down().await;
            Ok::<_, WorkerError>(())
        })
        .await
}

/// Apalis' retries, with a pause that doubles: a store itself gives a failed job back at once, or a second later.
fn retry_policy() -> BackoffRetryPolicy<ExponentialBackoff> {
    let (first, longest) = (Duration::from_millis(100), Duration::from_secs(10));
    let backoff = ExponentialBackoffMaker::new(first, longest, 0.5, HasherRng::default())
        .expect("the first pause is not the longest")
        .make_backoff();
    RetryPolicy::retries(MAX_ATTEMPTS - 1).with_backoff(backoff)
}

async fn run_job(stored: StoredJob, attempt: Attempt, work: Data<Work>) -> Result<(), BoxError> {
    let (attempt, job) = (attempt.current(), stored.id());
    if attempt > 1 {
        work.retried.count();
    }
    let number = attempt.try_into().unwrap_or(u32::MAX);
    let error = match work.jobs.run_attempt(stored, number).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    // `AbortError` tells every store to keep the job as dead.
    if attempt >= MAX_ATTEMPTS || matches!(error.downcast_ref(), Some(RunJobError::Unreadable)) {
        error!(%job, attempt, "job given up: {error}");
        return Err(Box::new(AbortError::new(error)));
    }
    warn!(%job, attempt, "job failed, and is tried again: {error}");
    if is_of_another_version(&error) {
        sleep(work.version_pause).await;
    }
    Err(error)
}

/// Whether another worker may be able to run the job. In a deploy a newer one takes this one's place, and what this one still holds.
fn is_of_another_version(error: &BoxError) -> bool {
    matches!(
        error.downcast_ref(),
        Some(RunJobError::NotRegistered { .. } | RunJobError::Payload { .. })
    )
}
