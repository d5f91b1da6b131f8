//! [`Retries`]: postpones or aborts a job that failed on an apalis worker.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use apalis_core::error::AbortError;

use super::store::{postpone, text_of};
use crate::{Backoff, BoxError, JobId, JobStore, util::timer::FOR_EVER};

/// How long a worker waits for its store to postpone a job. The job keeps its place meanwhile.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Retries {
    pub(super) backoff: Backoff,
    pub(super) store: Arc<dyn JobStore>,
}

/// An attempt that failed. apalis counts the first as 1.
pub(super) struct Failed {
    pub(super) id: JobId,
    /// False if the stored value is not a job.
    pub(super) is_job: bool,
    pub(super) attempt: usize,
    pub(super) max_attempts: usize,
}

impl Retries {
    /// Postpones a failed job in the store, and returns the error. If the job must not run again,
    /// returns an `AbortError` instead.
    ///
    /// The worker then reports the failure to the store. If the worker dies before that, the store
    /// has already postponed the job.
    pub(super) async fn after(&self, failed: Failed, error: BoxError) -> BoxError {
        if error.is::<AbortError>() {
            return error;
        }
        if failed.attempt >= failed.max_attempts || !failed.is_job {
            return AbortError::new(error).into();
        }
        let pause = self.backoff.pause(failed.attempt).min(FOR_EVER);
        let time = SystemTime::now() + pause;
        let postponed = postpone(&*self.store, failed.id, time, ANSWERS_WITHIN).await;
        if let Err(why) = postponed {
            warn_of_no_pause(failed.id, &text_of(why));
        }
        error
    }
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
