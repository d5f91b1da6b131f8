//! [`Engine`]: where jobs are stored, and what each of the three stores needs.

mod postgres;
mod redis;
mod sqlite;

use std::{sync::Arc, time::Duration};

use apalis_core::error::WorkerError;
use serde_json::Value;
use tower_background_tasks::{BoxError, JobStore};

use self::{postgres::Postgres, redis::Redis, sqlite::Sqlite};
use crate::{Settings, work::Work};

/// How often an idle worker looks for jobs. By itself it would at each heartbeat.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A worker that has missed so many heartbeats is dead.
const MISSED_HEARTBEATS: usize = 3;

/// Where jobs are stored.
#[derive(Clone, Debug)]
pub struct Engine(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Sqlite(Sqlite),
    Postgres(Postgres),
    Redis(Redis),
}

/// How many jobs there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Ever stored.
    pub accepted: u64,
    /// Run to their end.
    pub done: u64,
    /// Given up.
    pub dead: u64,
}

/// A job that was given up; it is kept.
#[derive(Clone, Debug)]
pub struct Dead {
    /// As it is stored.
    pub job: String,
    /// Why.
    pub error: String,
}

impl Dead {
    /// `result` is as apalis writes it: `{"Err": "…"}`.
    fn new(job: String, result: String) -> Self {
        let parsed: Option<Value> = serde_json::from_str(&result).ok();
        let error = parsed.and_then(|result| Some(result["Err"].as_str()?.to_owned()));
        Self {
            job,
            error: error.unwrap_or(result),
        }
    }

    /// Of a row of a database.
    fn of_row((job, result): (Vec<u8>, String)) -> Self {
        Self::new(String::from_utf8_lossy(&job).into_owned(), result)
    }
}

impl Counts {
    /// Of a row of a database.
    fn of_row((accepted, done, dead): (i64, i64, i64)) -> Result<Self, BoxError> {
        Ok(Self {
            accepted: accepted.try_into()?,
            done: done.try_into()?,
            dead: dead.try_into()?,
        })
    }

    /// Waiting, or being run.
    pub fn left(&self) -> u64 {
        self.accepted.saturating_sub(self.done + self.dead)
    }
}

impl Engine {
    /// Connects, and makes the tables where there are none.
    ///
    /// # Errors
    ///
    /// This returns an error when the store cannot be reached, or the URL is of none of the three.
    pub async fn connect(settings: &Settings) -> Result<Self, BoxError> {
        let url = &settings.database;
        let scheme = url.split(':').next().unwrap_or_default();
        let connected = match scheme {
            "sqlite" => Sqlite::connect(settings).await.map(Kind::Sqlite),
            "postgres" | "postgresql" => Postgres::connect(settings).await.map(Kind::Postgres),
            "redis" => Redis::connect(settings).await.map(Kind::Redis),
            _ => Err("its scheme is not sqlite, postgres or redis".into()),
        };
        connected
            .map(Self)
            .map_err(|error| format!("cannot use the database {url}: {error}").into())
    }

    /// For a runner.
    pub fn store(&self) -> Arc<dyn JobStore> {
        match &self.0 {
            Kind::Sqlite(engine) => Arc::new(engine.store()),
            Kind::Postgres(engine) => Arc::new(engine.store()),
            Kind::Redis(engine) => Arc::new(engine.store()),
        }
    }

    /// Counts the jobs.
    ///
    /// # Errors
    ///
    /// This returns an error when the store does not answer.
    pub async fn counts(&self) -> Result<Counts, BoxError> {
        match &self.0 {
            Kind::Sqlite(engine) => engine.counts().await,
            Kind::Postgres(engine) => engine.counts().await,
            Kind::Redis(engine) => engine.counts().await,
        }
    }

    /// The jobs that were given up.
    ///
    /// # Errors
    ///
    /// This returns an error when the store does not answer.
    pub async fn dead(&self) -> Result<Vec<Dead>, BoxError> {
        match &self.0 {
            Kind::Sqlite(engine) => engine.dead().await,
            Kind::Postgres(engine) => engine.dead().await,
            Kind::Redis(engine) => engine.dead().await,
        }
    }

    /// Runs a worker until it is stopped, or the store fails.
    pub(crate) async fn work(&self, name: &str, work: &Work) -> Result<(), WorkerError> {
        match &self.0 {
            Kind::Sqlite(engine) => engine.work(name, work).await,
            Kind::Postgres(engine) => engine.work(name, work).await,
            Kind::Redis(engine) => engine.work(name, work).await,
        }
    }
}
