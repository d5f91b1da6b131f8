//! [`Job`]: a task with a name and a payload.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{JobContext, JobRequest, TaskResult};

/// A task that can leave this process. It needs only its own fields, which are serialised, and the
/// state that its runner or worker supplies.
///
/// The handler is the same whether the job runs here after the response or on another machine:
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
/// A job from a store may run more than once: a worker may die before it reports the job's end. A
/// handler may also add the job twice, when the store's answer is late. So a job should be
/// idempotent. [`JobContext::id`] is the same for each run of one job, and
/// [`JobContext::attempt`] is the number of the run.
///
/// # Versions
///
/// The version of the program that runs a job may be older or newer than the one that stored it. A
/// new field needs `#[serde(default)]`. A job whose meaning changes needs a new name.
///
/// # What JSON cannot hold
///
/// Stored jobs are JSON. `serde_json` writes some values that it does not read back. It writes NaN
/// and infinity as `null`, and does not read nesting deeper than 127 levels. Such a job fails with
/// [`RunJobError::Payload`](crate::RunJobError::Payload) when a worker runs it. An `Option` reads
/// `null` as `None`.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The job's name in stores, logs and reports. It must not change while a store keeps jobs
    /// under it.
    const NAME: &'static str;

    /// What the job needs from its runner or worker: pools, clients, settings.
    /// [`Jobs::new`](crate::Jobs::new) takes this state, and each run gets a clone.
    type State: Clone + Send + Sync + 'static;

    /// Does the job.
    ///
    /// Like any other async task, a job must not block its thread for long.
    ///
    /// # Errors
    ///
    /// This returns an error when the job fails. If the job runs as a task, it then ends
    /// [`Failed`](crate::TaskEnd::Failed). An apalis worker retries the job, unless the error is
    /// an `apalis_core::error::AbortError`.
    ///
    /// # Cancel safety
    ///
    /// The runner or worker may drop this at an await point, for example at a timeout or shutdown.
    fn run(self, state: Self::State, cx: JobContext) -> impl Future<Output = TaskResult> + Send;

    /// Delays the job: no worker runs it before `delay` has passed. apalis' stores round the time
    /// up to a whole second. This needs a store.
    fn after(self, delay: Duration) -> JobRequest<Self> {
        JobRequest::new(self).after(delay)
    }

    /// Sets the job's priority, which is 0 by default. Workers run the job before waiting jobs of
    /// a lower priority. This needs a store; apalis' Redis backend has no priorities.
    fn priority(self, priority: u16) -> JobRequest<Self> {
        JobRequest::new(self).priority(priority)
    }

    /// Makes the job unique: a store that keeps another job of the same name and `key`, finished
    /// or not, refuses this one. So a client that repeats its request adds one job. The error is
    /// [`AddJobErrorKind::Duplicate`](crate::AddJobErrorKind::Duplicate). This needs a store that
    /// detects duplicates, such as a `PostgresStore` or a `SqliteStore`.
    fn unique(self, key: impl Into<String>) -> JobRequest<Self> {
        JobRequest::new(self).unique(key)
    }
}
