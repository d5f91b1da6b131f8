//! The three engines. A test that stops one, or measures, has them all to itself.

use std::{
    env,
    fmt::{self, Display},
    path::Path,
    process::Command,
    sync::{PoisonError, RwLock},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::say;

static IN_USE: RwLock<()> = RwLock::new(());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
    Redis,
}

pub(crate) fn on_sqlite(test: fn(Engine)) {
    test(Engine::Sqlite);
}

pub(crate) fn on_postgres(name: &str, test: fn(Engine)) {
    on_server(Engine::Postgres, name, test);
}

pub(crate) fn on_redis(name: &str, test: fn(Engine)) {
    on_server(Engine::Redis, name, test);
}

fn on_server(engine: Engine, name: &str, test: fn(Engine)) {
    match env::var(engine.variable()) {
        Ok(_) => test(engine),
        Err(_) => say!(
            "!!! SKIPPED: {name} on {engine}: {} is not set; see .ci/engines",
            engine.variable()
        ),
    }
}

/// Runs beside other tests that share the engines.
pub(crate) fn shared(test: impl FnOnce()) {
    let _in_use = IN_USE.read().unwrap_or_else(PoisonError::into_inner);
    test();
}

/// Runs while no other test does.
pub(crate) fn alone(test: impl FnOnce()) {
    let _in_use = IN_USE.write().unwrap_or_else(PoisonError::into_inner);
    test();
}

impl Engine {
    fn variable(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "DURABLE_POSTGRES_URL",
            Self::Redis => "DURABLE_REDIS_URL",
        }
    }

    /// Where it is: SQLite's file in `dir`, a new database of this name, or the server.
    pub(crate) fn url(self, dir: &Path, name: &str) -> String {
        if self == Self::Sqlite {
            return format!("sqlite:{}", dir.join("jobs.db").display());
        }
        let url = env::var(self.variable()).expect("it is set where this test runs");
        match self {
            Self::Postgres => new_database(&url, name),
            _ => url,
        }
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(self) {
        self.control("kill");
    }

    pub(crate) fn resume(self) {
        self.control("resume");
    }

    fn control(self, verb: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/engines");
        let dir = env::var("DURABLE_ENGINES").expect(".ci/engines sets it");
        let status = Command::new(script)
            .args([verb, &self.to_string().to_lowercase(), &dir])
            .status();
        assert!(
            status.expect("it can be run").success(),
            "cannot {verb} {self}"
        );
    }
}

fn new_database(url: &str, name: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("a connection");
        let sql = AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
        sqlx::query(sql)
            .execute(&mut connection)
            .await
            .expect("it is made");
    });
    let (server, _) = url.rsplit_once('/').expect("the name of a database");
    format!("{server}/{name}")
}

impl Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
            Self::Redis => "Redis",
        })
    }
}
