//! [`JobContext`]: what a running job may ask.

use std::fmt;

use crate::{Job, JobId, JobOrigin, TaskContext};

/// What a running job may ask: its id, which attempt this is, where it came from.
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

    /// The context of a job that is a task of its request.
    pub(crate) fn of_task(id: JobId, name: &'static str, task: TaskContext) -> Self {
        Self {
            id,
            attempt: 1,
            name,
            request: task.request().map(JobOrigin::of),
            task: Some(task),
        }
    }

    /// Returns the job's id: the same at each attempt, on any machine.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Returns which run of the job this is: 1 for the first.
    ///
    /// This is the number of runs that are known. A worker that died may have run the job without
    /// telling. [`Jobs::run`](crate::Jobs::run) is not told the attempt.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns [`Job::NAME`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the request in which the job was added, or `None` for a job of no request.
    pub fn request(&self) -> Option<&JobOrigin> {
        self.request.as_ref()
    }

    /// Returns the context of the task, if the job is a task of its request: how the response went,
    /// and whether the runner shuts down. `None` on a worker.
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
