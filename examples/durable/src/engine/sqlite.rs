//! SQLite: a file. apalis' `SqliteStorage::setup` would turn `synchronous` off on the one connection that it gets; here all of them wait
//! for the disk, so that what was accepted survives a power cut.

use std::time::Duration;

use apalis_core::{
    backend::{BackendConfig, ext::BackendExt},
    error::WorkerError,
};
use apalis_sqlite::{Config, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteStorage};
use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use tokio::time::sleep;
use tower_background_tasks::{ApalisStore, BoxError, PollInterval, StoredJob};

use super::{Counts, Dead, MISSED_HEARTBEATS, POLL_INTERVAL};
use crate::{
    Settings,
    work::{MAX_ATTEMPTS, Work, run_worker},
};

/// A file.
#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    storage: SqliteStorage<StoredJob>,
}

impl Sqlite {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, BoxError> {
        let pool = open(settings).await?;
        make_tables(&pool).await?;
        let config = Config::default()
            .queue(&settings.queue)
            .batch_size(settings.batch_size)
            .heartbeat_interval(settings.heartbeat)
            .missed_heartbeats(MISSED_HEARTBEATS);
        let storage = SqliteStorage::new(&pool).with_config(config);
        Ok(Self { storage })
    }

    pub(super) fn store(&self) -> ApalisStore<SqliteStorage<StoredJob>> {
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
            count(*) FILTER (WHERE status = 'Killed') FROM Jobs WHERE job_type = ?";
        let row = sqlx::query_as(sql)
            .bind(self.queue())
            .fetch_one(self.storage.pool())
            .await?;
        Counts::of_row(row)
    }

    pub(super) async fn dead(&self) -> Result<Vec<Dead>, BoxError> {
        let sql = "SELECT job, last_result FROM Jobs WHERE job_type = ? AND status = 'Killed'";
        let rows: Vec<(Vec<u8>, String)> = sqlx::query_as(sql)
            .bind(self.queue())
            .fetch_all(self.storage.pool())
            .await?;
        Ok(rows.into_iter().map(Dead::of_row).collect())
    }

    fn queue(&self) -> String {
        self.storage.config().queue.to_string()
    }
}

/// Where several processes make them at once, all but one fail, and then find them made.
async fn make_tables(pool: &SqlitePool) -> Result<(), BoxError> {
    for _ in 0..10 {
        match SqliteStorage::migrations().run(pool).await {
            Ok(()) => return Ok(()),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    Ok(SqliteStorage::migrations().run(pool).await?)
}

/// One connection: SQLite has one writer at a time, and several of one process would only wait for each other.
async fn open(settings: &Settings) -> Result<SqlitePool, BoxError> {
    let options: SqliteConnectOptions = settings.database.parse()?;
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(settings.store_timeout);
    let pool = SqlitePoolOptions::new().max_connections(1);
    Ok(pool.connect_with(options).await?)
}
