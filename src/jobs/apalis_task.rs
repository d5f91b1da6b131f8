//! Converts a [`StoredJob`] to a task of apalis.

use std::time::{SystemTime, UNIX_EPOCH};

use apalis_core::task::{builder::TaskBuilder, task_id::TaskId};

use crate::StoredJob;

impl StoredJob {
    /// Converts this job to a task of apalis with the job's id and options.
    ///
    /// With [`add_job_with`](crate::BackgroundTasks::add_job_with), the program inserts this task
    /// itself. A backend's own `push_tasks` takes a `Task<Vec<u8>>`, whose bytes are JSON:
    ///
    /// ```
    /// use apalis_core::task::Task;
    /// use tower_background_tasks::{BoxError, StoredJob};
    ///
    /// /// For `apalis_postgres::queries::push_tasks(&mut *tx, "orders", vec![task])`.
    /// fn encoded(stored: StoredJob) -> Result<Task<Vec<u8>>, BoxError> {
    ///     let task = stored.into_task().max_attempts(5);
    ///     Ok(task.try_map_args(|stored| serde_json::to_vec(&stored))?.build())
    /// }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "apalis")))]
    pub fn into_task(self) -> TaskBuilder<Self> {
        self.task().map_args(|()| self)
    }

    fn task(&self) -> TaskBuilder<()> {
        let mut task = TaskBuilder::new(()).task_id(TaskId::from_string(self.id().to_string()));
        if let Some(time) = self.run_at() {
            task = task.run_at_timestamp(whole_seconds(time));
        }
        if let Some(priority) = self.priority() {
            task = task.priority(priority.into());
        }
        if let Some(key) = self.idempotency_key() {
            task = task.idempotency_key(key);
        }
        task
    }

    /// Returns the unique key, prefixed with the job's name: one table keeps jobs of all names. The
    /// length tells where the name ends, as a name may have any character.
    fn idempotency_key(&self) -> Option<String> {
        let (name, key) = (self.name(), self.unique_key()?);
        Some(format!("{}:{name}/{key}", name.len()))
    }
}

/// Rounds up to whole seconds, because stores keep no fractions. So no job runs before its time.
pub(super) fn whole_seconds(time: SystemTime) -> u64 {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The function that sets up each task of a store, if there is one.
#[derive(Default)]
pub(super) struct Prepare(Option<Box<PrepareFn>>);

type PrepareFn = dyn Fn(&StoredJob, TaskBuilder<()>) -> TaskBuilder<()> + Send + Sync;

impl Prepare {
    pub(super) fn by(
        prepare: impl Fn(&StoredJob, TaskBuilder<()>) -> TaskBuilder<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Box::new(prepare)))
    }

    pub(super) fn task_of(&self, job: StoredJob) -> TaskBuilder<StoredJob> {
        let mut task = job.task();
        if let Some(prepare) = &self.0 {
            task = prepare(&job, task);
        }
        task.map_args(|()| job)
    }
}
