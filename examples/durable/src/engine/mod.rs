//! [`Engine`]: where jobs are stored, and what each of the three stores needs.

mod dead;
mod postgres;
mod redis;
mod sqlite;
mod worker;

use std::{any::Any, fmt, process, sync::Arc, time::Duration};

use apalis_board_api::framework::{ApiBuilder, RegisterRoute};
use axum::{
    Router,
    routing::{MethodRouter, post},
};
use tokio::time::timeout;
use tower_background_tasks::{BoxError, JobId, JobStore, Jobs, Runner, StoredJob};
use tracing::warn;

pub use self::dead::Dead;
use self::{postgres::Postgres, redis::Redis, sqlite::Sqlite};
use crate::{
    Settings, Warehouse,
    handler::{order, order_in_transaction},
};

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

/// A connection to a database that has a table of orders. An order that it has is not inserted.
pub trait Orders: Any + Send {
    /// Inserts an order.
    fn insert_order(&mut self, number: u64) -> impl Future<Output = sqlx::Result<()>> + Send;
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

impl Counts {
    /// Of a row of a database.
    fn of_row((accepted, done, dead): (i64, i64, i64)) -> Result<Self, BoxError> {
        Ok(Self {
            accepted: accepted.try_into()?,
            done: done.try_into()?,
            dead: dead.try_into()?,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            done,
            dead,
        } = self;
        let left = accepted.saturating_sub(done + dead);
        write!(
            f,
            "accepted {accepted}, done {done}, left {left}, dead {dead}"
        )
    }
}

/// Does the same with each of the three.
macro_rules! each {
    ($self:ident, $engine:ident => $call:expr) => {
        match &$self.0 {
            Kind::Sqlite($engine) => $call,
            Kind::Postgres($engine) => $call,
            Kind::Redis($engine) => $call,
        }
    };
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
        each!(self, engine => Arc::new(engine.store()))
    }

    /// The handler of an order: in a transaction where there are some.
    pub fn order(&self) -> MethodRouter {
        match &self.0 {
            Kind::Sqlite(engine) => {
                post(order_in_transaction::<sqlx::Sqlite>).with_state(engine.pool())
            }
            Kind::Postgres(engine) => {
                post(order_in_transaction::<sqlx::Postgres>).with_state(engine.pool())
            }
            Kind::Redis(_) => post(order),
        }
    }

    /// Counts the jobs.
    ///
    /// # Errors
    ///
    /// This returns an error when the store does not answer.
    pub async fn counts(&self) -> Result<Counts, BoxError> {
        each!(self, engine => engine.counts().await)
    }

    /// The jobs that were given up.
    ///
    /// # Errors
    ///
    /// This returns an error when the store does not answer.
    pub async fn dead(&self) -> Result<Vec<Dead>, BoxError> {
        each!(self, engine => engine.dead().await)
    }

    /// Has a job that failed tried again at once, as if it never had been: a dead one, or one that waits for its next attempt.
    ///
    /// # Errors
    ///
    /// This returns an error when there is no such job, or the store does not answer.
    pub async fn retry(&self, id: JobId) -> Result<(), BoxError> {
        match each!(self, engine => engine.retry(&id.to_string()).await)? {
            true => Ok(()),
            false => Err(format!("no job {id} that failed").into()),
        }
    }

    /// Runs a worker until `runner` shuts down.
    ///
    /// It ends when its store fails, so another takes its place. Its name must be new: the store still waits for the jobs of the old
    /// one, until it has missed its heartbeats.
    pub(crate) async fn work(&self, jobs: &Jobs<Warehouse>, runner: &Runner) {
        for start in 0.. {
            let name = format!("worker-{}-{start}", process::id());
            match each!(self, engine => engine.work(&name, jobs.clone(), runner.clone()).await) {
                Ok(()) => return,
                Err(error) => warn!("{name} ended: {error}; another starts in a second"),
            }
            let pause = timeout(Duration::from_secs(1), runner.shutting_down());
            if pause.await.is_ok() {
                return;
            }
        }
    }

    /// The routes of the board.
    pub(crate) fn board(&self, queue: &str, api: ApiBuilder<Router>) -> ApiBuilder<Router> {
        each!(self, engine => RegisterRoute::<_, StoredJob>::register(api, queue, engine.storage()))
    }
}
