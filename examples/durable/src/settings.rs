//! [`Settings`]: from the command line and the environment.

use std::{env, path::PathBuf, process, str::FromStr, time::Duration};

use tokio::net::TcpListener;
use tower_background_tasks::{BoxError, JobId};

const USAGE: &str = "usage: durable [serve | work | dead | retry ID | board] [--in-process] [URL]
  serve           accept orders over HTTP
  work            ship them
                  neither: both, in one process
  dead            list the orders that nobody could ship
  retry ID        have one of them tried again, or one that waits for its next attempt: at once, as if anew
  board           serve a page to look at orders and workers
  --in-process    the server ships its orders itself, after the response; it stores those that it leaves at its end
  URL             sqlite:durable.db (the default), postgres://…, redis://…; or set DATABASE_URL";

/// What this process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It accepts orders and ships them.
    Both,
    /// It accepts orders.
    Serve,
    /// It ships orders.
    Work,
    /// It lists the orders that nobody could ship.
    Dead,
    /// It has a job tried again.
    Retry(JobId),
    /// It serves a page to look at.
    Board,
}

/// How this process does it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it does.
    pub mode: Mode,
    /// Whether the server ships its orders itself.
    pub in_process: bool,
    /// Where jobs are stored.
    pub database: String,
    /// Which jobs: several applications may share a database.
    pub queue: String,
    /// Where the server listens.
    pub address: String,
    /// The log of the orders shipped.
    pub shipped: PathBuf,
    /// How long work may go on after a signal to stop.
    pub grace: Duration,
    /// How long a handler waits for the store.
    pub store_timeout: Duration,
    /// How often a worker tells that it lives. After three that are missed, others take over its jobs.
    pub heartbeat: Duration,
    /// How many jobs run at once.
    pub max_running: usize,
    /// How many jobs a worker takes at once. More is faster, and for short jobs only: a worker that has taken more than it may run
    /// sends no heartbeats until it has a place for the last of them.
    pub batch_size: usize,
    /// How long a job waits after its first failure. After each further one it waits three times as long.
    pub first_retry: Duration,
    /// How long it waits at most.
    pub longest_retry: Duration,
    /// How often it is tried. All attempts together take days, so that they outlast a deploy and a weekend.
    pub max_attempts: usize,
}

impl Settings {
    /// Reads this process's command line and environment. If they are not understood, or ask for help, it says so and ends the process.
    pub fn of_process() -> Self {
        if env::args().any(|argument| matches!(&*argument, "help" | "--help" | "-h")) {
            println!("{USAGE}");
            process::exit(0);
        }
        Self::read(env::args().skip(1)).unwrap_or_else(|error| {
            eprintln!("{error}");
            process::exit(2)
        })
    }

    /// Reads a command line and the environment.
    ///
    /// # Errors
    ///
    /// This returns an error when either is not understood; it says what would be.
    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, BoxError> {
        let mut settings = Self::of_environment()?;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "serve" => settings.mode = Mode::Serve,
                "work" => settings.mode = Mode::Work,
                "dead" => settings.mode = Mode::Dead,
                "retry" => settings.mode = Mode::Retry(arguments.next().ok_or(USAGE)?.parse()?),
                "board" => settings.mode = Mode::Board,
                "--in-process" => settings.in_process = true,
                url if url.contains(':') => settings.database = argument,
                _ => return Err(USAGE.into()),
            }
        }
        Ok(settings)
    }

    /// Listens at the address.
    pub(crate) async fn listen(&self) -> Result<TcpListener, BoxError> {
        let address = &self.address;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
        let address = listener.local_addr()?;
        println!("Listening on http://{address}; Ctrl-C or SIGTERM stops it");
        if self.mode != Mode::Board {
            println!(
                "Try: curl -H 'content-type: application/json' -d '{{\"number\":1,\"failures\":2}}' http://{address}/orders"
            );
        }
        Ok(listener)
    }

    fn of_environment() -> Result<Self, BoxError> {
        Ok(Self {
            mode: Mode::Both,
            in_process: false,
            database: text("DATABASE_URL", "sqlite:durable.db"),
            queue: text("QUEUE", "orders"),
            address: text("ADDR", "127.0.0.1:3000"),
            shipped: text("SHIPPED", "shipped.log").into(),
            grace: seconds("GRACE", 10.0)?,
            store_timeout: seconds("STORE_TIMEOUT", 5.0)?,
            heartbeat: seconds("HEARTBEAT", 5.0)?,
            max_running: number("MAX_RUNNING", 32)?,
            batch_size: number("BATCH_SIZE", 1)?,
            first_retry: seconds("FIRST_RETRY", 10.0)?,
            longest_retry: seconds("LONGEST_RETRY", 6.0 * 60.0 * 60.0)?,
            max_attempts: number("MAX_ATTEMPTS", 25)?,
        })
    }
}

fn text(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T, BoxError> {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name} is a number, not `{text}`").into()),
        Err(_) => Ok(default),
    }
}

fn seconds(name: &str, default: f64) -> Result<Duration, BoxError> {
    let seconds = number(name, default)?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| format!("{name} is a number of seconds: {error}").into())
}
