//! Redis. What it has accepted survives its own crash only with `appendonly yes` and `appendfsync always`: with `everysec` it
//! answers before it writes while an fsync is under way.

use std::{
    future::ready,
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
use tower_background_tasks::{
    ApalisStore, BoxError, JobId, JobStore, Jobs, PollInterval, PushFuture, Runner, StoredJob,
};
use tracing::warn;

use super::{Counts, Dead, MISSED_HEARTBEATS, POLL_INTERVAL, worker::run_worker};
use crate::{Settings, Warehouse};

/// A Redis server.
#[derive(Clone, Debug)]
pub(super) struct Redis {
    storage: RedisStorage<StoredJob>,
    max_running: usize,
    max_attempts: usize,
}

impl Redis {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, BoxError> {
        let connection = apalis_redis::connect(settings.database.as_str()).await?;
        let config = Config::default()
            .queue(&settings.queue)
            .batch_size(settings.batch_size)
            .heartbeat_interval(settings.heartbeat)
            .missed_heartbeats(MISSED_HEARTBEATS);
        Ok(Self {
            storage: RedisStorage::new(connection).with_config(config),
            max_running: settings.max_running,
            max_attempts: settings.max_attempts,
        })
    }

    pub(super) fn store(&self) -> RedisStore {
        let max_attempts = self.max_attempts;
        let inner = ApalisStore::prepared(self.storage(), move |_, task| {
            task.max_attempts(max_attempts)
        });
        let redis = self.clone();
        RedisStore { inner, redis }
    }

    pub(super) fn storage(&self) -> RedisStorage<StoredJob> {
        self.storage.clone()
    }

    pub(super) async fn work(
        &self,
        name: &str,
        jobs: Jobs<Warehouse>,
        runner: Runner,
    ) -> Result<(), WorkerError> {
        let strategy = PollInterval::new(POLL_INTERVAL);
        let backend = self.storage().poll_with_strategy(strategy);
        self.promote().await.map_err(io::Error::other)?;
        tokio::select! {
            ended = run_worker(name, backend, self.max_running, jobs, runner) => ended,
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
        moving
            .key(config.active_jobs_list())
            .arg(seconds(SystemTime::now()));
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
                id,
                job.unwrap_or_default(),
                result.unwrap_or_default(),
            ));
        }
        Ok(dead)
    }

    pub(super) async fn retry(&self, id: &str) -> Result<bool, BoxError> {
        let config = self.storage.config();
        let script = Script::new(
            "local meta, id = KEYS[4] .. ':' .. ARGV[1], ARGV[1]
            local status = redis.call('hget', meta, 'status')
            if status ~= 'Failed' and status ~= 'Killed' then return 0 end
            if redis.call('srem', KEYS[1], id) + redis.call('zrem', KEYS[2], id) == 0 then return 0 end
            redis.call('hset', meta, 'attempts', 0, 'status', 'Pending')
            redis.call('rpush', KEYS[3], id)
            return 1",
        );
        let mut retrying = script.key(config.dead_jobs_set());
        retrying
            .key(config.scheduled_jobs_set())
            .key(config.active_jobs_list())
            .key(config.job_meta_hash())
            .arg(id);
        let found: usize = retrying.invoke_async(&mut self.connection()).await?;
        Ok(found > 0)
    }

    /// apalis puts a job that failed among those that are due in some seconds, as soon as its worker has told it so. From there it goes
    /// to its own time. If this process dies in between, the job is run again too early.
    async fn postpone(self, id: String, time: u64) {
        if let Err(error) = self.put_off(&id, time).await {
            warn!("job {id} is tried again too early: {error}");
        }
    }

    async fn put_off(&self, id: &str, time: u64) -> RedisResult<()> {
        let scheduled = self.storage.config().scheduled_jobs_set();
        for _ in 0..200 {
            sleep(Duration::from_millis(5)).await;
            let mut put_off = redis::cmd("ZADD");
            put_off.arg(&scheduled).arg(&["XX", "GT", "CH"]);
            put_off.arg(time).arg(id);
            if put_off.query_async::<usize>(&mut self.connection()).await? > 0 {
                break;
            }
        }
        Ok(())
    }

    fn connection(&self) -> ConnectionManager {
        self.storage.clone().get_connection().clone()
    }
}

/// Where jobs go that are due at once, and those that failed.
pub(super) struct RedisStore {
    inner: ApalisStore<RedisStorage<StoredJob>>,
    redis: Redis,
}

impl JobStore for RedisStore {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        self.inner.push(job)
    }

    fn postpone(&self, id: JobId, time: SystemTime) -> PushFuture<'_> {
        let time = seconds(time) + 1;
        tokio::spawn(self.redis.clone().postpone(id.to_string(), time));
        Box::pin(ready(Ok(())))
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    let time = time.duration_since(UNIX_EPOCH);
    time.unwrap_or_default().as_secs()
}
