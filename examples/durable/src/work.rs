//! The worker: apalis' own.

use tower_background_tasks::{Backoff, BoxError, Runner};

use crate::{Engine, Settings, runner::jobs};

/// Ships orders until `runner` shuts down, whatever becomes of the store in between.
pub(crate) async fn work(
    settings: &Settings,
    engine: &Engine,
    runner: &Runner,
) -> Result<(), BoxError> {
    let backoff = Backoff::new(settings.first_retry, settings.longest_retry);
    let jobs = jobs(settings)?.retry(backoff, engine.store());
    engine.work(&jobs, runner).await;
    Ok(())
}
