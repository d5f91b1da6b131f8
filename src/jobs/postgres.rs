//! [`PostgresStore`]: inserts into Postgres in the caller's transaction, and detects duplicates.

use std::{any::Any, fmt, sync::Arc, time::SystemTime};

use apalis_core::task::builder::TaskBuilder;
use apalis_postgres::{PgConnection, PostgresStorage};
use sqlx::postgres::types::PgHstore;

use super::{
    apalis::MAX_ATTEMPTS,
    apalis_task::{Prepare, whole_seconds},
    store::{duplicate_of, not_its_connection, postponed},
};
use crate::{BoxError, JobId, JobStore, PushFuture, StoredJob, UnsupportedByStore};

/// Inserts a job as apalis does, unless another job has its key.
///
/// apalis' own statement would fail, and with it the caller's transaction. A savepoint is no
/// remedy: sqlx makes none within a transaction that the caller has begun by a statement of its
/// own.
const INSERT: &str =
    "INSERT INTO apalis.jobs (id, job_type, status, attempts, max_attempts, run_at,
        priority, metadata, idempotency_key, job)
    VALUES ($1, $2, 'Pending', 0, $3, coalesce(to_timestamp($4), date_trunc('second', now())),
        $5, $6, $7, $8)
    ON CONFLICT (job_type, idempotency_key) DO NOTHING";

/// The longest key, in bytes. An index of Postgres takes about 2,700 for queue and key.
const LONGEST_KEY: usize = 2_000;

const NO_SUCH_KEYS: &str = "a key and its job's name have at most 2,000 bytes together, and no NUL";

/// A [`JobStore`] over apalis' [`PostgresStorage`].
///
/// Beyond what [`ApalisStore`](crate::ApalisStore) does, this store inserts jobs through the
/// caller's own connection or transaction ([`add_job_in`](crate::BackgroundTasks::add_job_in)). It
/// also detects duplicates ([`Job::unique`](crate::Job::unique)), and postpones failed jobs for
/// `Jobs::retry`. Workers are the same for both stores.
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
/// After a duplicate, the caller's transaction is still usable. If another transaction has inserted
/// the key and has not committed, this one waits for it, as with any unique index. Above the
/// isolation level READ COMMITTED, Postgres may answer with a serialisation failure instead.
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
        let task = self.prepare.task_of(job);
        let task = task.try_map_args(|job| serde_json::to_vec(&job))?.build();
        let (id, key) = (
            task.task_id().map(ToString::to_string),
            task.idempotency_key(),
        );
        if key.is_some_and(|key| key.len() > LONGEST_KEY || key.contains('\0')) {
            return Err(UnsupportedByStore::new(NO_SUCH_KEYS).into());
        }
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let metadata = task.metadata().clone().into_inner().into_iter();
        let inserted = sqlx::query(INSERT)
            .bind(&id)
            .bind(self.queue())
            .bind(number(task.max_attempts().unwrap_or(MAX_ATTEMPTS)))
            .bind(task.run_at().map(|seconds| seconds as f64))
            .bind(number(task.priority().unwrap_or_default()))
            .bind(PgHstore(
                metadata.map(|(name, value)| (name, Some(value))).collect(),
            ))
            .bind(key)
            .bind(&task.args)
            .execute(&mut *connection)
            .await?;
        if inserted.rows_affected() > 0 {
            return Ok(());
        }
        let sql = "SELECT id FROM apalis.jobs WHERE job_type = $1 AND idempotency_key = $2";
        let query = sqlx::query_scalar(sql).bind(self.queue()).bind(key);
        Err(duplicate_of(query.fetch_optional(connection).await?))
    }

    fn queue(&self) -> String {
        self.storage.config().queue.to_string()
    }
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
            let updated = query.execute(self.storage.pool()).await?;
            postponed(id, updated.rows_affected())
        })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
