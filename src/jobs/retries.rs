//! [`Retries`]: postpones or aborts a job that failed on an apalis worker.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use apalis_core::error::AbortError;

use super::store::{postpone, text_of};
use crate::{Backoff, BoxError, JobId, JobStore, RunJobError};

/// The longest pause. Every store can represent the time at its end.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[derive(Clone)]
pub(crate) struct Retries {
    pub(super) backoff: Backoff,
    pub(super) store: Arc<dyn JobStore>,
}

/// An attempt that failed. apalis counts the first as 1.
pub(super) struct Failed {
    pub(super) id: JobId,
    pub(super) attempt: usize,
    pub(super) max_attempts: usize,
}

impl Retries {
    /// Postpones a failed job in the store. Returns an `AbortError` if it must not run again.
    ///
    /// The worker reports the failure to the store afterwards. If the worker dies in between, the
    /// job still waits for its pause.
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
