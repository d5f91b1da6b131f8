//! [`Retries`]: what becomes of a job that failed on a worker of apalis.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use apalis_core::error::AbortError;

use super::store::{postpone, text_of};
use crate::{Backoff, BoxError, JobId, JobStore, RunJobError};

/// The longest pause that any store can write down.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[derive(Clone)]
pub(crate) struct Retries {
    pub(super) backoff: Backoff,
    pub(super) store: Arc<dyn JobStore>,
}

/// An attempt, as apalis counts: 1 for the first.
pub(super) struct Failed {
    pub(super) id: JobId,
    pub(super) attempt: usize,
    pub(super) max_attempts: usize,
}

impl Retries {
    /// Has the store keep a job that failed until its pause is over, or for good.
    ///
    /// The worker tells the store of the failure afterwards. If it dies in between, the job waits all
    /// the same.
    pub(super) async fn after(&self, failed: Failed, error: BoxError) -> BoxError {
        if error.is::<AbortError>() {
            return error;
        }
        if failed.attempt >= failed.max_attempts || is_no_job(&error) {
            return AbortError::new(error).into();
        }
        let pause = self.backoff.pause(failed.attempt).min(FOR_EVER);
        let time = SystemTime::now() + pause;
        if let Err(why) = postpone(&*self.store, failed.id, time).await {
            warn_of_no_pause(failed.id, &text_of(why));
        }
        error
    }
}

fn is_no_job(error: &BoxError) -> bool {
    matches!(error.downcast_ref(), Some(RunJobError::Unreadable))
}

fn warn_of_no_pause(id: JobId, why: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_background_tasks",
        { task.id = %id, error = why },
        "background job is tried again at once, as its store does not postpone it",
    );
    #[cfg(not(feature = "tracing"))]
    let _ = (id, why);
}
