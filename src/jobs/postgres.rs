//! [`PostgresStore`]: inserts into Postgres in the caller's transaction, and detects duplicates.

use std::{any::Any, fmt, sync::Arc, time::SystemTime};

use apalis_core::task::builder::TaskBuilder;
use apalis_postgres::{Error, PgConnection, PostgresStorage, queries::push_tasks};
use sqlx::Connection;

use super::{
    apalis_task::{Prepare, whole_seconds},
    store::not_its_connection,
};
use crate::{BoxError, DuplicateJob, JobId, JobStore, PushFuture, StoredJob};

/// A [`JobStore`] over apalis' [`PostgresStorage`].
///
/// Beyond what [`ApalisStore`](crate::ApalisStore) does, this store inserts jobs through the
/// caller's own connection or transaction ([`add_job_in`](crate::BackgroundTasks::add_job_in)). It
/// also detects duplicates ([`Job::unique`](crate::Job::unique)), and postpones failed jobs for
/// `Jobs::retry`. Workers are the same.
///
/// ```
/// use apalis_postgres::{Config, PgPool, PostgresStorage};
/// use axum::http::StatusCode;
/// # use serde::{Deserialize, Serialize};
/// use tower_background_tasks::{BackgroundTasks, BoxError, Job, PostgresStore, Runner};
/// # use tower_background_tasks::{JobContext, TaskResult};
/// # #[derive(Serialize, Deserialize)] struct ShipOrder { number: i64 }
/// # impl Job for ShipOrder {
/// #     const NAME: &'static str = "ship-order";
/// #     type State = ();
/// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
/// # }
///
/// fn runner(pool: &PgPool) -> Runner {
///     let config = Config::default().queue("orders");
///     let storage = PostgresStorage::new(pool).with_config(config);
///     Runner::builder().job_store(PostgresStore::new(storage)).build()
/// }
///
/// async fn order(
///     tasks: BackgroundTasks,
///     pool: PgPool,
///     number: i64,
/// ) -> Result<(), BoxError> {
///     let mut tx = pool.begin().await?;
///     sqlx::query("INSERT INTO orders VALUES ($1)").bind(number).execute(&mut *tx).await?;
///     tasks.add_job_in(&mut *tx, ShipOrder { number }).await?;
///     Ok(tx.commit().await?) // both, or neither
/// }
/// ```
///
/// # Duplicates
///
/// The store inserts a job with a key within a savepoint. So the caller's transaction is still
/// usable if the job is a duplicate. If another transaction has inserted the key and has not
/// committed, this one waits for it, as with any unique index.
#[derive(Clone)]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub struct PostgresStore {
    storage: PostgresStorage<StoredJob>,
    prepare: Arc<Prepare>,
}

impl PostgresStore {
    /// Makes a store that keeps jobs in `storage`.
    pub fn new(storage: PostgresStorage<StoredJob>) -> Self {
        let prepare = Arc::default();
        Self { storage, prepare }
    }

    /// Makes a store that keeps jobs in `storage`. `prepare` sets up each task, as for
    /// [`ApalisStore::prepared`](crate::ApalisStore::prepared).
    pub fn prepared(
        storage: PostgresStorage<StoredJob>,
        prepare: impl Fn(&StoredJob, TaskBuilder<()>) -> TaskBuilder<()> + Send + Sync + 'static,
    ) -> Self {
        let prepare = Arc::new(Prepare::by(prepare));
        Self { storage, prepare }
    }

    async fn insert(&self, connection: &mut PgConnection, job: StoredJob) -> Result<(), BoxError> {
        let Some(key) = job.idempotency_key() else {
            return Ok(self.push_task(connection, job).await?);
        };
        let mut savepoint = connection.begin().await?;
        match self.push_task(&mut savepoint, job).await {
            Ok(()) => Ok(savepoint.commit().await?),
            Err(Error::Database(error)) if is_duplicate(&error) => {
                savepoint.rollback().await?;
                Err(self.duplicate(connection, &key).await?.into())
            }
            Err(error) => Err(error.into()), // the savepoint's drop rolls back
        }
    }

    async fn push_task(&self, connection: &mut PgConnection, job: StoredJob) -> Result<(), Error> {
        let task = self.prepare.task_of(job);
        let task = task.try_map_args(|job| serde_json::to_vec(&job));
        let task = task.map_err(Error::JsonError)?.build();
        push_tasks(connection, &self.queue(), vec![task]).await
    }

    /// Looks up which job has the key.
    async fn duplicate(
        &self,
        connection: &mut PgConnection,
        key: &str,
    ) -> Result<DuplicateJob, BoxError> {
        let sql = "SELECT id FROM apalis.jobs WHERE job_type = $1 AND idempotency_key = $2";
        let query = sqlx::query_scalar(sql).bind(self.queue()).bind(key);
        let id: Option<String> = query.fetch_optional(connection).await?;
        Ok(DuplicateJob::of(id.and_then(|id| id.parse().ok())))
    }

    fn queue(&self) -> String {
        self.storage.config().queue.to_string()
    }
}

/// True if the unique index of the keys refused the row.
fn is_duplicate(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.constraint() == Some("idx_jobs_idempotency_key"))
}

impl JobStore for PostgresStore {
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
            None => not_its_connection("sqlx's `PgConnection`, such as `&mut *tx`"),
        }
    }

    fn postpone(&self, id: JobId, time: SystemTime) -> PushFuture<'_> {
        let sql = "UPDATE apalis.jobs SET run_at = to_timestamp($1) WHERE id = $2";
        let seconds = whole_seconds(time) as f64;
        let query = sqlx::query(sql).bind(seconds).bind(id.to_string());
        Box::pin(async move {
            query.execute(self.storage.pool()).await?;
            Ok(())
        })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
