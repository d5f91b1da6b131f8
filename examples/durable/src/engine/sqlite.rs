//! SQLite: a file. apalis' `SqliteStorage::setup` would turn `synchronous` off on the one connection that it gets; here all of them wait
//! for the disk, so that what was accepted survives a power cut.

use std::time::Duration;

use apalis_core::{
    backend::{BackendConfig, ext::BackendExt},
    error::WorkerError,
};
use apalis_sqlite::{Config, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteStorage};
use sqlx::{
    SqliteConnection,
    sqlite::{SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::sleep;
use tower_background_tasks::{BoxError, Jobs, PollInterval, Runner, SqliteStore, StoredJob};

use super::{Counts, Dead, MISSED_HEARTBEATS, Orders, POLL_INTERVAL, worker::run_worker};
use crate::{Settings, Warehouse};

const ORDERS: &str = "CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY)";

/// What SQLite believes of the table of jobs, which it does not count by itself.
///
/// apalis marks a job as running, and later as done, by its id. Without this, SQLite takes ten rows for the most that have one status
/// or one worker. So it looks for the id among all jobs that wait, and then among all that the worker has ever run, and is slower the
/// more there are. In truth a status and a worker have many rows, and an id has one.
const STATISTICS: &str = "ANALYZE Workers;
    DELETE FROM sqlite_stat1 WHERE tbl = 'Jobs';
    INSERT INTO sqlite_stat1 VALUES
        ('Jobs', 'sqlite_autoindex_Jobs_1', '1000000 1'),
        ('Jobs', 'idx_jobs_status_run_at', '1000000 10000 10000'),
        ('Jobs', 'LIdx', '1000000 100000');
    ANALYZE sqlite_schema";

/// A file.
#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    storage: SqliteStorage<StoredJob>,
    max_running: usize,
    max_attempts: usize,
}

impl Sqlite {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, BoxError> {
        let pool = open(settings).await?;
        set_up(&pool).await?;
        let config = Config::default()
            .queue(&settings.queue)
            .batch_size(settings.batch_size)
            .heartbeat_interval(settings.heartbeat)
            .missed_heartbeats(MISSED_HEARTBEATS);
        Ok(Self {
            storage: SqliteStorage::new(&pool).with_config(config),
            max_running: settings.max_running,
            max_attempts: settings.max_attempts,
        })
    }

    pub(super) fn store(&self) -> SqliteStore {
        let max_attempts = self.max_attempts;
        SqliteStore::prepared(self.storage(), move |_, task| {
            task.max_attempts(max_attempts)
        })
    }

    pub(super) fn storage(&self) -> SqliteStorage<StoredJob> {
        self.storage.clone()
    }

    pub(super) fn pool(&self) -> SqlitePool {
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
            count(*) FILTER (WHERE status = 'Killed') FROM Jobs WHERE job_type = ?";
        let row = sqlx::query_as(sql)
            .bind(self.queue())
            .fetch_one(self.storage.pool())
            .await?;
        Counts::of_row(row)
    }

    pub(super) async fn dead(&self) -> Result<Vec<Dead>, BoxError> {
        let sql = "SELECT id, job, last_result FROM Jobs WHERE job_type = ? AND status = 'Killed'";
        let rows: Vec<(String, Vec<u8>, String)> = sqlx::query_as(sql)
            .bind(self.queue())
            .fetch_all(self.storage.pool())
            .await?;
        Ok(rows.into_iter().map(Dead::of_row).collect())
    }

    pub(super) async fn retry(&self, id: &str) -> Result<bool, BoxError> {
        let sql = "UPDATE Jobs SET status = 'Pending', attempts = 0, run_at = unixepoch(),
            done_at = NULL, lock_by = NULL, lock_at = NULL
            WHERE id = ? AND job_type = ? AND status IN ('Failed', 'Killed')";
        let query = sqlx::query(sql).bind(id).bind(self.queue());
        Ok(query.execute(self.storage.pool()).await?.rows_affected() > 0)
    }

    fn queue(&self) -> String {
        self.storage.config().queue.to_string()
    }
}

impl Orders for SqliteConnection {
    async fn insert_order(&mut self, number: u64) -> sqlx::Result<()> {
        let sql = "INSERT INTO orders VALUES (?) ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql).bind(number.cast_signed());
        query.execute(self).await.map(drop)
    }
}

/// Where several processes make the tables at once, all but one fail, and then find them made.
async fn set_up(pool: &SqlitePool) -> Result<(), BoxError> {
    for _ in 0..10 {
        match make_tables(pool).await {
            Ok(()) => return Ok(()),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    make_tables(pool).await
}

async fn make_tables(pool: &SqlitePool) -> Result<(), BoxError> {
    SqliteStorage::migrations().run(pool).await?;
    sqlx::raw_sql(ORDERS).execute(pool).await?;
    sqlx::raw_sql(STATISTICS).execute(pool).await?;
    Ok(())
}

/// One connection: SQLite has one writer at a time, and several of one process would only wait for each other.
async fn open(settings: &Settings) -> Result<SqlitePool, BoxError> {
    let options: SqliteConnectOptions = settings.database.parse()?;
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-64000") // kilobytes: a table of many jobs fits
        .busy_timeout(settings.store_timeout);
    let pool = SqlitePoolOptions::new().max_connections(1);
    Ok(pool.connect_with(options).await?)
}
