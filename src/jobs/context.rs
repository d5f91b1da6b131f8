//! [`JobContext`]: what a running job can learn about itself.

use std::fmt;

use crate::{Job, JobId, JobOrigin, TaskContext};

/// What a running job can learn about itself: its id, its attempt, and its request.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tower_background_tasks::{Job, JobContext, TaskResult};
///
/// #[derive(Serialize, Deserialize)]
/// struct Charge {
///     cents: u64,
/// }
///
/// impl Job for Charge {
///     const NAME: &'static str = "charge";
///     type State = ();
///
///     async fn run(self, (): (), cx: JobContext) -> TaskResult {
///         // The same at each attempt: the bank charges once.
///         let key = cx.id().to_string();
///         println!("{} cents, key {key}, attempt {}", self.cents, cx.attempt());
///         Ok(())
///     }
/// }
///
/// // In a unit test:
/// let run = Charge { cents: 100 }.run((), JobContext::new::<Charge>());
/// # drop(run);
/// ```
#[derive(Clone)]
pub struct JobContext {
    id: JobId,
    attempt: u32,
    name: &'static str,
    request: Option<JobOrigin>,
    /// `None` on a worker.
    task: Option<TaskContext>,
}

impl JobContext {
    /// Makes the context of a new job's first attempt, for a unit test of [`Job::run`].
    pub fn new<J: Job>() -> Self {
        Self::on_worker(JobId::random(), J::NAME, 1, None)
    }

    pub(crate) fn on_worker(
        id: JobId,
        name: &'static str,
        attempt: u32,
        request: Option<JobOrigin>,
    ) -> Self {
        Self {
            id,
            attempt,
            name,
            request,
            task: None,
        }
    }

    /// Makes the context of a job that is a task of its request.
    pub(crate) fn of_task(id: JobId, name: &'static str, task: TaskContext) -> Self {
        Self {
            id,
            attempt: 1,
            name,
            request: task.request().map(JobOrigin::of),
            task: Some(task),
        }
    }

    /// Returns the job's id. It is the same at each attempt, on any machine.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Returns the number of this attempt, which is 1 for the first.
    ///
    /// This counts only known attempts: a worker that died may have run the job without reporting
    /// it. [`Jobs::run`](crate::Jobs::run) counts each run as the first since the job was stored.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns [`Job::NAME`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the request that added the job, or `None` if no request did.
    pub fn request(&self) -> Option<&JobOrigin> {
        self.request.as_ref()
    }

    /// Returns the task's context if the job runs as a task, and `None` on a worker. The context
    /// has the response's outcome, and shows whether the runner is shutting down.
    pub fn task(&self) -> Option<&TaskContext> {
        self.task.as_ref()
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("name", &self.name)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
