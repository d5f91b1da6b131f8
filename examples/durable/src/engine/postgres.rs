//! PostgreSQL. It needs the extension `hstore`, which is among those that the owner of a database may create.

use std::str::FromStr;

use apalis_core::{backend::ext::BackendExt, error::WorkerError};
use apalis_postgres::{Config, PgConnection, PgPool, PostgresStorage};
use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tower_background_tasks::{BoxError, Jobs, PollInterval, PostgresStore, Runner, StoredJob};

use super::{Counts, Dead, MISSED_HEARTBEATS, Orders, POLL_INTERVAL, worker::run_worker};
use crate::{Settings, Warehouse};

/// Postgres plans apalis' `get_jobs` once for all queues and numbers of jobs. It then reads the whole table at each fetch, so that a worker
/// becomes the slower the more jobs wait, and the more others are in the table. By its index a fetch costs the same.
const SET_UP: &str = "DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('durable'));
    IF NOT EXISTS (SELECT FROM pg_proc WHERE oid = 'apalis.get_jobs'::regproc AND 'enable_seqscan=off' = ANY (proconfig)) THEN
        ALTER FUNCTION apalis.get_jobs SET enable_seqscan = off;
    END IF;
    CREATE TABLE IF NOT EXISTS orders (number BIGINT PRIMARY KEY);
END $$";

/// A PostgreSQL server.
#[derive(Clone)]
pub(super) struct Postgres {
    storage: PostgresStorage<StoredJob>,
    max_running: usize,
    max_attempts: usize,
}

impl Postgres {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, BoxError> {
        let pool = open(settings).await?;
        PostgresStorage::setup(&pool).await?;
        sqlx::query(SET_UP).execute(&pool).await?;
        let config = Config::default()
            .queue(&settings.queue)
            .batch_size(settings.batch_size)
            .heartbeat_interval(settings.heartbeat)
            .missed_heartbeats(MISSED_HEARTBEATS);
        Ok(Self {
            storage: PostgresStorage::new(&pool).with_config(config),
            max_running: settings.max_running,
            max_attempts: settings.max_attempts,
        })
    }

    pub(super) fn store(&self) -> PostgresStore {
        let max_attempts = self.max_attempts;
        PostgresStore::prepared(self.storage(), move |_, task| {
            task.max_attempts(max_attempts)
        })
    }

    pub(super) fn storage(&self) -> PostgresStorage<StoredJob> {
        self.storage.clone()
    }

    pub(super) fn pool(&self) -> PgPool {
        self.storage.pool().clone()
    }

    pub(super) async fn work(
        &self,
        name: &str,
        jobs: Jobs<Warehouse>,
        runner: Runner,
    ) -> Result<(), WorkerError> {
        let strategy = PollInterval::new(POLL_INTERVAL);
        let backend = self.storage().poll_with_strategy(strategy);
        run_worker(name, backend, self.max_running, jobs, runner).await
    }

    pub(super) async fn counts(&self) -> Result<Counts, BoxError> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE status = 'Done'),
            count(*) FILTER (WHERE status = 'Killed') FROM apalis.jobs WHERE job_type = $1";
        let row = sqlx::query_as(sql)
            .bind(self.queue())
            .fetch_one(self.storage.pool())
            .await?;
        Counts::of_row(row)
    }

    pub(super) async fn dead(&self) -> Result<Vec<Dead>, BoxError> {
        let sql = "SELECT id, job, last_result::text FROM apalis.jobs WHERE job_type = $1 AND status = 'Killed'";
        let rows: Vec<(String, Vec<u8>, String)> = sqlx::query_as(sql)
            .bind(self.queue())
            .fetch_all(self.storage.pool())
            .await?;
        Ok(rows.into_iter().map(Dead::of_row).collect())
    }

    pub(super) async fn retry(&self, id: &str) -> Result<bool, BoxError> {
        let sql = "UPDATE apalis.jobs SET status = 'Pending', attempts = 0, run_at = now(),
            done_at = NULL, lock_by = NULL, lock_at = NULL
            WHERE id = $1 AND job_type = $2 AND status IN ('Failed', 'Killed')";
        let query = sqlx::query(sql).bind(id).bind(self.queue());
        Ok(query.execute(self.storage.pool()).await?.rows_affected() > 0)
    }

    fn queue(&self) -> String {
        self.storage.config().queue.to_string()
    }
}

impl Orders for PgConnection {
    async fn insert_order(&mut self, number: u64) -> sqlx::Result<()> {
        let sql = "INSERT INTO orders VALUES ($1) ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql).bind(number.cast_signed());
        query.execute(self).await.map(drop)
    }
}

async fn open(settings: &Settings) -> Result<PgPool, BoxError> {
    // Otherwise each start would log that the tables are there.
    let quiet = [("client_min_messages", "warning")];
    let options = PgConnectOptions::from_str(&settings.database)?.options(quiet);
    // A pool would try for its whole time, and then not say why it cannot.
    options.connect().await?.close().await?;
    let pool = PgPoolOptions::new().acquire_timeout(settings.store_timeout);
    Ok(pool.connect_with(options).await?)
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}
