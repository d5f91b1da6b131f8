//! [`Job`]: a task with a name and a payload.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{JobContext, JobRequest, TaskResult};

/// A task that can leave this process. It needs only its own fields, which are serialised, and a
/// state that its runner or worker has.
///
/// The handler's code is the same whether a job runs here after the response or on another machine:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tower_background_tasks::{AddJobError, BackgroundTasks, Job, JobContext, TaskResult};
///
/// #[derive(Clone)]
/// struct Mailer;
///
/// impl Mailer {
///     async fn send(&self, to: &str) -> std::io::Result<()> {
///         println!("Welcome, {to}!");
///         Ok(())
///     }
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct WelcomeEmail {
///     to: String,
/// }
///
/// impl Job for WelcomeEmail {
///     const NAME: &'static str = "welcome-email";
///     type State = Mailer;
///
///     async fn run(self, mailer: Mailer, _cx: JobContext) -> TaskResult {
///         mailer.send(&self.to).await?;
///         Ok(())
///     }
/// }
///
/// async fn signup(
///     tasks: BackgroundTasks,
///     email: String,
/// ) -> Result<&'static str, AddJobError> {
///     tasks.add_job(WelcomeEmail { to: email }).await?;
///     Ok("signed up")
/// }
/// ```
///
/// # At least once
///
/// A job from a store may run more than once. Its worker may die before it has told the store. Or
/// the handler may have added the job again, when the store's answer was late. So a job should be
/// idempotent. [`JobContext::id`] is the same for each run of the same job, and
/// [`JobContext::attempt`] says which run this is.
///
/// # Versions
///
/// An older or a newer version of the program may run a job than the one that stored it. A new
/// field needs `#[serde(default)]`. A job whose meaning changes needs a new name.
///
/// # What JSON cannot hold
///
/// Stored jobs are JSON. `serde_json` writes some values that it does not read back: a float that
/// is NaN or infinite becomes `null`, and nesting deeper than 127 is too deep. Such a job fails
/// when it is run, with [`RunJobError::Payload`](crate::RunJobError::Payload).
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The job's name in stores, logs and reports. It must not change while a store has jobs of
    /// that name.
    const NAME: &'static str;

    /// What a job needs from its runner or worker: pools, clients, settings.
    /// [`Jobs::new`](crate::Jobs::new) takes it, and each run gets a clone.
    type State: Clone + Send + Sync + 'static;

    /// Does the job.
    ///
    /// As a task of its request, a job must not block its thread for long, like any other async
    /// task.
    ///
    /// # Errors
    ///
    /// This returns an error when the job failed. Here the task then ends
    /// [`Failed`](crate::TaskEnd::Failed). A worker of apalis gets the error as it is, and retries
    /// as it is configured. `apalis_core::error::AbortError` tells it not to.
    fn run(self, state: Self::State, cx: JobContext) -> impl Future<Output = TaskResult> + Send;

    /// Has the store keep the job until `delay` is over, and no worker run it before. Stores of
    /// apalis know whole seconds. A store is needed.
    fn after(self, delay: Duration) -> JobRequest<Self> {
        JobRequest::new(self).after(delay)
    }

    /// Has workers run the job before those of a lower priority that wait. It is 0 by default. A
    /// store is needed; apalis' Redis has no priorities.
    fn priority(self, priority: u16) -> JobRequest<Self> {
        JobRequest::new(self).priority(priority)
    }

    /// Has the store refuse the job if it keeps another of this name and `key`, done or not:
    /// [`AddJobErrorKind::Duplicate`](crate::AddJobErrorKind::Duplicate) has the other's id. So a
    /// client that asks twice is served once. A store that tells duplicates is needed, such as a
    /// `PostgresStore` or a `SqliteStore`.
    fn unique(self, key: impl Into<String>) -> JobRequest<Self> {
        JobRequest::new(self).unique(key)
    }
}
