//! Workers that nothing else wakes: each alone in its task, idle, and half a minute from its heartbeat.

use std::time::{Duration, Instant};

use apalis_core::{
    backend::{
        BackendConfig,
        ext::{
            BackendExt,
            poll_strategy::{IntervalStrategy, PollStrategy},
        },
    },
    worker::builder::WorkerBuilder,
};
use apalis_sqlite::{Config, SqlitePool, SqlitePoolOptions, SqliteStorage};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_background_tasks::{
    Job, JobContext, JobStore, Jobs, PollInterval, SqliteStore, StoredJob, TaskResult,
};

use crate::{engines::alone, say};

const WORKERS: usize = 10;
const SOON: Duration = Duration::from_millis(300);

/// The example's.
const POLL: Duration = Duration::from_millis(100);

/// A look at the store takes longer, as it would on a busy machine: the interval is over just when the look has found nothing.
const SHORT: Duration = Duration::from_micros(50);

/// Tells that it has begun.
#[derive(Serialize, Deserialize)]
struct Begin;

impl Job for Begin {
    const NAME: &'static str = "begin";
    type State = UnboundedSender<Instant>;

    async fn run(self, begun: Self::State, _cx: JobContext) -> TaskResult {
        Ok(begun.send(Instant::now())?)
    }
}

#[test]
fn each_of_ten_idle_workers_begins_a_job_within_a_third_of_a_second() {
    for interval in [POLL, SHORT] {
        assert_eq!(late_begins(|| PollInterval::new(interval)), 0);
    }
}

/// The control: apalis' own strategy.
#[test]
fn with_the_interval_of_apalis_some_of_ten_idle_workers_sleep_on() {
    assert!(late_begins(|| IntervalStrategy::new(SHORT)) > 0);
}

/// How many jobs did not begin soon.
fn late_begins<S>(strategy: impl Fn() -> S) -> usize
where
    S: PollStrategy + Send + Sync + Unpin + 'static,
{
    let mut late = 0;
    alone(|| {
        let (runtime, dir) = (
            tokio::runtime::Runtime::new().unwrap(),
            TempDir::new().unwrap(),
        );
        let url = format!("sqlite:{}?mode=rwc", dir.path().join("jobs.db").display());
        late = runtime.block_on(late_begins_in(&url, &strategy));
    });
    late
}

async fn late_begins_in<S>(url: &str, strategy: &impl Fn() -> S) -> usize
where
    S: PollStrategy + Send + Sync + Unpin + 'static,
{
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect(url).await.unwrap();
    SqliteStorage::setup(&pool).await.unwrap();
    let mut waits = JoinSet::new();
    for worker in 0..WORKERS {
        waits.spawn(waits_of(storage(&pool, worker), strategy()));
    }
    let waits: Vec<Duration> = waits.join_all().await.into_iter().flatten().collect();
    let late = waits.iter().filter(|&&wait| wait > SOON).count();
    say!(
        "{}: {} jobs of {WORKERS} idle workers, {late} later than {SOON:?}, the last after {:.2?}",
        std::any::type_name::<S>(),
        waits.len(),
        waits.iter().max().unwrap()
    );
    late
}

fn storage(pool: &SqlitePool, worker: usize) -> SqliteStorage<StoredJob> {
    let config = Config::default()
        .queue(format!("queue-{worker}"))
        .heartbeat_interval(Duration::from_secs(30));
    SqliteStorage::new(pool).with_config(config)
}

/// How long each of three jobs waits for its worker, which is idle by then. Two seconds are for ever.
async fn waits_of<S>(storage: SqliteStorage<StoredJob>, strategy: S) -> Vec<Duration>
where
    S: PollStrategy + Send + Sync + Unpin + 'static,
{
    let (sender, mut begun) = unbounded_channel();
    let backend = storage.clone().poll_with_strategy(strategy);
    let worker = WorkerBuilder::new(storage.config().queue.to_string())
        .backend(backend)
        .build(Jobs::new(sender).register::<Begin>());
    let worker = tokio::spawn(worker.run());
    let mut waits = Vec::new();
    for _ in 0..3 {
        sleep(Duration::from_millis(750)).await;
        let stored = Instant::now();
        let store = SqliteStore::new(storage.clone());
        store.push(StoredJob::new(&Begin).unwrap()).await.unwrap();
        let begins = timeout(Duration::from_secs(2), begun.recv()).await;
        waits.push(begins.map_or(Duration::from_secs(2), |begun| begun.unwrap() - stored));
    }
    worker.abort();
    waits
}
