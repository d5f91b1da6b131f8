//! [`SqliteStore`]: inserts into `SQLite` in the caller's transaction, and detects duplicates.

use std::{any::Any, fmt, sync::Arc, time::SystemTime};

use apalis_core::{backend::BackendConfig, task::builder::TaskBuilder};
use apalis_sqlite::{SqliteStorage, queries::push_tasks};
use sqlx::SqliteConnection;

use super::{
    apalis_task::{Prepare, whole_seconds},
    store::{duplicate_of, not_its_connection, postponed},
};
use crate::{BoxError, JobId, JobStore, PushFuture, StoredJob};

/// A [`JobStore`] over apalis' [`SqliteStorage`].
///
/// Beyond what [`ApalisStore`](crate::ApalisStore) does, this store inserts jobs through the
/// caller's own connection or transaction ([`add_job_in`](crate::BackgroundTasks::add_job_in)). It
/// also detects duplicates ([`Job::unique`](crate::Job::unique)), and postpones failed jobs for
/// `Jobs::retry`. Workers are the same for both stores.
///
/// ```
/// use apalis_sqlite::{Config, SqlitePool, SqliteStorage};
/// # use serde::{Deserialize, Serialize};
/// use tower_background_tasks::{BackgroundTasks, BoxError, Job, Runner, SqliteStore};
/// # use tower_background_tasks::{JobContext, TaskResult};
/// # #[derive(Serialize, Deserialize)] struct ShipOrder { number: i64 }
/// # impl Job for ShipOrder {
/// #     const NAME: &'static str = "ship-order";
/// #     type State = ();
/// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
/// # }
///
/// fn runner(pool: &SqlitePool) -> Runner {
///     let config = Config::default().queue("orders");
///     let storage = SqliteStorage::new(pool).with_config(config);
///     Runner::builder().job_store(SqliteStore::new(storage)).build()
/// }
///
/// async fn order(
///     tasks: BackgroundTasks,
///     pool: SqlitePool,
///     number: i64,
/// ) -> Result<(), BoxError> {
///     let mut tx = pool.begin().await?;
///     sqlx::query("INSERT INTO orders VALUES (?)").bind(number).execute(&mut *tx).await?;
///     tasks.add_job_in(&mut *tx, ShipOrder { number }).await?;
///     Ok(tx.commit().await?) // both, or neither
/// }
/// ```
///
/// `SQLite` allows one writer at a time. A transaction that reads and then writes fails at once if
/// another has written in between. To prevent this, use `pool.begin_with("BEGIN IMMEDIATE")`.
#[derive(Clone)]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub struct SqliteStore {
    storage: SqliteStorage<StoredJob>,
    prepare: Arc<Prepare>,
}

impl SqliteStore {
    /// Makes a store that keeps jobs in `storage`.
    pub fn new(storage: SqliteStorage<StoredJob>) -> Self {
        let prepare = Arc::default();
        Self { storage, prepare }
    }

    /// Makes a store that keeps jobs in `storage`. `prepare` sets up each task, as for
    /// [`ApalisStore::prepared`](crate::ApalisStore::prepared).
    pub fn prepared(
        storage: SqliteStorage<StoredJob>,
        prepare: impl Fn(&StoredJob, TaskBuilder<()>) -> TaskBuilder<()> + Send + Sync + 'static,
    ) -> Self {
        let prepare = Arc::new(Prepare::by(prepare));
        Self { storage, prepare }
    }

    async fn insert(
        &self,
        connection: &mut SqliteConnection,
        job: StoredJob,
    ) -> Result<(), BoxError> {
        let task = self.prepare.task_of(job);
        let task = task.try_map_args(|job| serde_json::to_vec(&job))?.build();
        let key = task.idempotency_key().map(str::to_owned);
        push_tasks(connection, &self.queue(), &[task]).await?;
        // If another job has the key, apalis neither inserts this one nor returns an error.
        let changes = sqlx::query_scalar("SELECT changes()");
        let inserted: i64 = changes.fetch_one(&mut *connection).await?;
        if inserted > 0 {
            return Ok(());
        }
        let sql = "SELECT id FROM Jobs WHERE job_type = ? AND idempotency_key = ?";
        let query = sqlx::query_scalar(sql).bind(self.queue()).bind(key);
        Err(duplicate_of(query.fetch_optional(connection).await?))
    }

    fn queue(&self) -> String {
        self.storage.config().queue.to_string()
    }
}

impl JobStore for SqliteStore {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        Box::pin(async move {
            let mut connection = self.storage.pool().acquire().await?;
            self.insert(&mut connection, job).await
        })
    }

    fn push_in<'a>(
        &'a self,
        connection: &'a mut (dyn Any + Send),
        job: StoredJob,
    ) -> PushFuture<'a> {
        match connection.downcast_mut() {
            Some(connection) => Box::pin(self.insert(connection, job)),
            None => not_its_connection("sqlx's `SqliteConnection`, such as `&mut *tx`"),
        }
    }

    fn postpone(&self, id: JobId, time: SystemTime) -> PushFuture<'_> {
        let sql = "UPDATE Jobs SET run_at = ? WHERE id = ?";
        let seconds = i64::try_from(whole_seconds(time)).unwrap_or(i64::MAX);
        let query = sqlx::query(sql).bind(seconds).bind(id.to_string());
        Box::pin(async move {
            let updated = query.execute(self.storage.pool()).await?;
            postponed(id, updated.rows_affected())
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
