//! [`Job`]: a task with a name and a payload.

use serde::{Serialize, de::DeserializeOwned};

use crate::{JobContext, TaskResult};

/// A task that can leave this process: what it needs is its own fields, which are serialised, and a state that whoever runs it
/// has.
///
/// The handler's code is the same whether a job runs here after the response, or on another machine:
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
/// async fn signup(tasks: BackgroundTasks, email: String) -> Result<&'static str, AddJobError> {
///     tasks.add_job(WelcomeEmail { to: email }).await?;
///     Ok("signed up")
/// }
/// ```
///
/// # At least once
///
/// A job that came from a store may run more often than once: its worker may die before it has told the store, or the handler
/// may have added it again when the store's answer was late. So it should be idempotent; [`JobContext::id`] is the same for each run of
/// the same job, and [`JobContext::attempt`] says which run this is.
///
/// # Versions
///
/// A job may be run by an older or a newer version of the program than the one that stored it. A new field wants
/// `#[serde(default)]`; what is no longer the same job wants a new name.
///
/// # What JSON cannot hold
///
/// Stored jobs are JSON, of which `serde_json` writes some that it does not read: a float that is NaN or infinite becomes `null`, and what
/// is nested deeper than 127 is too deep. Such a job fails when it is run, with [`RunJobError::Payload`](crate::RunJobError::Payload).
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// What the job is called in stores, logs and reports. It must not change while stored jobs have it.
    const NAME: &'static str;

    /// What a job wants from whoever runs it: pools, clients, settings. Given to [`Jobs::new`](crate::Jobs::new), and cloned for
    /// each run.
    type State: Clone + Send + Sync + 'static;

    /// Does the job.
    ///
    /// As a task of its request it must not block its thread for long, as any other async task.
    ///
    /// # Errors
    ///
    /// This returns an error when the job failed. Here the task then ends [`Failed`](crate::TaskEnd::Failed); a worker of apalis
    /// gets the error as it is, and retries as it is set to. `apalis_core::error::AbortError` tells it not to.
    fn run(self, state: Self::State, cx: JobContext) -> impl Future<Output = TaskResult> + Send;
}
