//! Redis. What it has accepted survives its own crash only with `appendonly yes` and `appendfsync always`: with `everysec` it
//! answers before it writes while an fsync is under way.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use apalis_core::{
    backend::{BackendConfig, ext::BackendExt},
    error::WorkerError,
};
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use redis::{AsyncTypedCommands, RedisError, RedisResult, Script};
use tokio::time::sleep;
use tower_background_tasks::{ApalisStore, BoxError, PollInterval, StoredJob};

use super::{Counts, Dead, MISSED_HEARTBEATS, POLL_INTERVAL};
use crate::{
    Settings,
    work::{MAX_ATTEMPTS, Work, run_worker},
};

/// A Redis server.
#[derive(Clone, Debug)]
pub(super) struct Redis {
    storage: RedisStorage<StoredJob>,
}

impl Redis {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, BoxError> {
        let connection = apalis_redis::connect(settings.database.as_str()).await?;
        let config = Config::default()
            .queue(&settings.queue)
            .batch_size(settings.batch_size)
            .heartbeat_interval(settings.heartbeat)
            .missed_heartbeats(MISSED_HEARTBEATS);
        let storage = RedisStorage::new(connection).with_config(config);
        Ok(Self { storage })
    }

    pub(super) fn store(&self) -> ApalisStore<RedisStorage<StoredJob>> {
        ApalisStore::prepared(self.storage.clone(), |_, task| {
            task.max_attempts(MAX_ATTEMPTS)
        })
    }

    pub(super) async fn work(&self, name: &str, work: &Work) -> Result<(), WorkerError> {
        let backend = self
            .storage
            .clone()
            .poll_with_strategy(PollInterval::new(POLL_INTERVAL));
        self.promote().await.map_err(io::Error::other)?;
        tokio::select! {
            ended = run_worker(name, backend, work) => ended,
            error = self.keep_promoting() => Err(io::Error::other(error).into()),
        }
    }

    async fn keep_promoting(&self) -> RedisError {
        loop {
            sleep(Duration::from_secs(1)).await;
            if let Err(error) = self.promote().await {
                return error;
            }
        }
    }

    /// Moves jobs that are due to where workers find them, in portions.
    ///
    /// apalis does so too, but all at once, and fails for ever when there are more than about 8,000, as after a time without workers:
    /// Lua cannot unpack so many.
    async fn promote(&self) -> RedisResult<()> {
        let config = self.storage.config();
        let script = Script::new(
            "local due = redis.call('zrangebyscore', KEYS[1], 0, ARGV[1], 'LIMIT', 0, 1000)
            if #due > 0 then
                redis.call('rpush', KEYS[2], unpack(due))
                redis.call('zrem', KEYS[1], unpack(due))
            end
            return #due",
        );
        let mut moving = script.key(config.scheduled_jobs_set());
        moving.key(config.active_jobs_list()).arg(now());
        while moving.invoke_async::<usize>(&mut self.connection()).await? > 0 {}
        Ok(())
    }

    pub(super) async fn counts(&self) -> Result<Counts, BoxError> {
        let (config, mut connection) = (self.storage.config(), self.connection());
        Ok(Counts {
            accepted: connection.hlen(config.job_data_hash()).await?.try_into()?,
            done: connection.scard(config.done_jobs_set()).await?.try_into()?,
            dead: connection.scard(config.dead_jobs_set()).await?.try_into()?,
        })
    }

    pub(super) async fn dead(&self) -> Result<Vec<Dead>, BoxError> {
        let (config, mut connection) = (self.storage.config(), self.connection());
        let mut dead = Vec::new();
        for id in connection.smembers(config.dead_jobs_set()).await? {
            let job = connection.hget(config.job_data_hash(), &id).await?;
            let meta = format!("{}:{id}", config.job_meta_hash());
            let result = connection.hget(meta, "result").await?;
            dead.push(Dead::new(
                job.unwrap_or_default(),
                result.unwrap_or_default(),
            ));
        }
        Ok(dead)
    }

    fn connection(&self) -> ConnectionManager {
        self.storage.clone().get_connection().clone()
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
