//! [`JobRequest`]: a job with options for its store.

use std::time::{Duration, SystemTime};

use crate::{Job, util::timer::FOR_EVER};

/// A job with options for the store that keeps it. [`Job::after`], [`Job::priority`] and
/// [`Job::unique`] return this.
///
/// ```
/// use std::time::Duration;
/// # use serde::{Deserialize, Serialize};
/// use tower_background_tasks::{AddJobError, BackgroundTasks, Job, JobContext, TaskResult};
/// # #[derive(Serialize, Deserialize)] struct Remind { order: u64 }
/// # impl Job for Remind {
/// #     const NAME: &'static str = "remind";
/// #     type State = ();
/// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
/// # }
///
/// async fn order(tasks: BackgroundTasks) -> Result<&'static str, AddJobError> {
///     let remind = Remind { order: 42 }.after(Duration::from_secs(24 * 60 * 60));
///     tasks.add_job(remind.unique("order-42")).await?;
///     Ok("ordered")
/// }
/// ```
///
/// Only a store applies the options. A runner without a store refuses a job with options
/// ([`AddJobErrorKind::NeedsStore`](crate::AddJobErrorKind::NeedsStore)).
#[derive(Clone, Debug)]
#[must_use = "a job does nothing unless it is added"]
pub struct JobRequest<J> {
    pub(super) job: J,
    pub(super) options: JobOptions,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct JobOptions {
    pub(super) run_at: Option<SystemTime>,
    pub(super) priority: Option<u16>,
    pub(super) unique_key: Option<String>,
}

impl<J: Job> JobRequest<J> {
    /// Makes a request for `job` without options.
    pub fn new(job: J) -> Self {
        let options = JobOptions::default();
        Self { job, options }
    }

    /// The same as [`Job::after`].
    pub fn after(mut self, delay: Duration) -> Self {
        self.options.run_at = SystemTime::now().checked_add(delay.min(FOR_EVER));
        self
    }

    /// The same as [`Job::priority`].
    pub fn priority(mut self, priority: u16) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// The same as [`Job::unique`].
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.options.unique_key = Some(key.into());
        self
    }
}

/// What [`add_job`](crate::BackgroundTasks::add_job) accepts: a [`Job`] or a [`JobRequest`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a job",
    note = "implement `Job` for it, which needs serde's `Serialize` and `Deserialize`"
)]
pub trait IntoJob: Send {
    /// The type of the job.
    type Job: Job;

    /// Converts this to a request.
    fn into_request(self) -> JobRequest<Self::Job>;
}

impl<J: Job> IntoJob for J {
    type Job = J;

    fn into_request(self) -> JobRequest<J> {
        JobRequest::new(self)
    }
}

impl<J: Job> IntoJob for JobRequest<J> {
    type Job = J;

    fn into_request(self) -> Self {
        self
    }
}
