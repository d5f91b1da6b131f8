//! PostgreSQL. It needs the extension `hstore`, which is among those that the owner of a database may create.

use apalis_core::{backend::ext::BackendExt, error::WorkerError};
use apalis_postgres::{Config, PgConnection, PgPool, PostgresStorage};
use sqlx::{Connection, postgres::PgPoolOptions};
use tower_background_tasks::{ApalisStore, BoxError, PollInterval, StoredJob};

use super::{Counts, Dead, MISSED_HEARTBEATS, POLL_INTERVAL};
use crate::{
    Settings,
    work::{MAX_ATTEMPTS, Work, run_worker},
};

/// Postgres plans apalis' `get_jobs` once for all queues and numbers of jobs. It then reads the whole table at each fetch, so that a worker
/// becomes the slower the more jobs wait, and the more others are in the table. By its index a fetch costs the same.
const FETCH_BY_INDEX: &str = "DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('apalis.get_jobs'));
    IF NOT EXISTS (SELECT FROM pg_proc WHERE oid = 'apalis.get_jobs'::regproc AND 'enable_seqscan=off' = ANY (proconfig)) THEN
        ALTER FUNCTION apalis.get_jobs SET enable_seqscan = off;
    END IF;
END $$";

/// A PostgreSQL server.
#[derive(Clone)]
pub(super) struct Postgres {
    storage: PostgresStorage<StoredJob>,
}

impl Postgres {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, BoxError> {
        let pool = open(settings).await?;
        PostgresStorage::setup(&pool).await?;
        sqlx::query(FETCH_BY_INDEX).execute(&pool).await?;
        let config = Config::default()
            .queue(&settings.queue)
            .batch_size(settings.batch_size)
            .heartbeat_interval(settings.heartbeat)
            .missed_heartbeats(MISSED_HEARTBEATS);
        let storage = PostgresStorage::new(&pool).with_config(config);
        Ok(Self { storage })
    }

    pub(super) fn store(&self) -> ApalisStore<PostgresStorage<StoredJob>> {
        ApalisStore::prepared(self.storage.clone(), |_, task| {
            task.max_attempts(MAX_ATTEMPTS)
        })
    }

    pub(super) async fn work(&self, name: &str, work: &Work) -> Result<(), WorkerError> {
        let backend = self
            .storage
            .clone()
            .poll_with_strategy(PollInterval::new(POLL_INTERVAL));
        run_worker(name, backend, work).await
    }

    pub(super) async fn counts(&self) -> Result<Counts, BoxError> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE status = 'Done'),
            count(*) FILTER (WHERE status = 'Killed') FROM apalis.jobs WHERE job_type = $1";
        let row = sqlx::query_as(sql)
            .bind(self.storage.config().queue.to_string())
            .fetch_one(self.storage.pool())
            .await?;
        Counts::of_row(row)
    }

    pub(super) async fn dead(&self) -> Result<Vec<Dead>, BoxError> {
        let sql = "SELECT job, last_result::text FROM apalis.jobs WHERE job_type = $1 AND status = 'Killed'";
        let rows: Vec<(Vec<u8>, String)> = sqlx::query_as(sql)
            .bind(self.storage.config().queue.to_string())
            .fetch_all(self.storage.pool())
            .await?;
        Ok(rows.into_iter().map(Dead::of_row).collect())
    }
}

async fn open(settings: &Settings) -> Result<PgPool, BoxError> {
    // A pool would try for its whole time, and then not say why it cannot.
    PgConnection::connect(&settings.database)
        .await?
        .close()
        .await?;
    let pool = PgPoolOptions::new().acquire_timeout(settings.store_timeout);
    Ok(pool.connect(&settings.database).await?)
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}
