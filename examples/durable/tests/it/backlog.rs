//! Many jobs, and for a while no worker.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use durable::ShipOrder;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tower_background_tasks::StoredJob;

use crate::{
    engines::{Engine, alone, on_postgres, on_redis, on_sqlite, shared},
    say,
    scene::{Scene, size},
};

/// More than Redis' Lua can unpack at once.
const BACKLOG: u64 = 10_000;

#[test]
fn a_backlog_of_ten_thousand_jobs_on_redis_is_run() {
    on_redis(
        "a_backlog_of_ten_thousand_jobs_on_redis_is_run",
        run_backlog,
    );
}

fn run_backlog(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine)
            .with("BATCH_SIZE", "100")
            .with("MAX_RUNNING", "100");
        let numbers: Vec<u64> = (1..=BACKLOG).collect();
        scene.push(numbers.iter().map(|&number| order(number)).collect());
        let _worker = scene.work("worker");
        let shipped = scene.wait_until_shipped(&numbers);
        assert_eq!(shipped.len(), numbers.len());
    });
}

fn order(number: u64) -> StoredJob {
    let order = ShipOrder {
        number,
        ..ShipOrder::default()
    };
    StoredJob::new(&order).expect("it is JSON")
}

#[test]
fn a_worker_is_as_quick_where_many_jobs_wait_on_sqlite() {
    on_sqlite(is_as_quick);
}

#[test]
fn a_worker_is_as_quick_where_many_jobs_wait_on_postgres() {
    on_postgres("a_worker_is_as_quick_where_many_jobs_wait", is_as_quick);
}

/// With 20,000 jobs that wait and 40,000 of another queue, against a few and none, in turns. A busy machine only makes a worker slower:
/// so the best of each counts, of three, and of up to ten while it is not enough.
fn is_as_quick(engine: Engine) {
    alone(|| {
        let measured = size("BACKLOG_MEASURED", 500);
        let (mut few, mut many) = (0.0_f64, 0.0_f64);
        for round in 1..=10 {
            few = few.max(rate(engine, measured, measured + 500, 0));
            many = many.max(rate(engine, measured, 20_000, 40_000));
            if round >= 3 && many / few >= 0.8 {
                break;
            }
        }
        let share = many / few;
        say!(
            "{engine}: one worker ran {few:.0} a second of few jobs, {many:.0} a second where 20,000 wait beside 40,000 others: {share:.2}"
        );
        assert!(share >= 0.8, "{share}");
    });
}

/// How many jobs a second a worker runs, while it runs so many.
fn rate(engine: Engine, measured: u64, own: u64, others: u64) -> f64 {
    let scene = Scene::new(engine);
    fill(&scene, own, others);
    let _worker = scene.work("worker");
    let first = wait_for(&scene, 100);
    let begun = Instant::now();
    let last = wait_for(&scene, first + measured);
    (last - first) as f64 / begun.elapsed().as_secs_f64()
}

/// Waits until so many are shipped, and gives how many are.
fn wait_for(scene: &Scene, count: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let shipped = scene.shipped_lines();
        if shipped >= count {
            return shipped;
        }
        assert!(Instant::now() < deadline, "only {shipped} are shipped");
        sleep(Duration::from_millis(5));
    }
}

/// Stores jobs as the library does, but many at once.
fn fill(scene: &Scene, own: u64, others: u64) {
    scene.push(Vec::new());
    let like = order(NUMBER);
    let json = serde_json::to_string(&like).expect("it is JSON");
    let job = json.replace(&like.id().to_string(), "ID");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for (queue, first, count) in [(scene.queue(), 0, own), ("others", 1_000_000, others)] {
            match scene.engine {
                Engine::Sqlite => fill_sqlite(scene.url(), queue, &job, first, count).await,
                _ => fill_postgres(scene.url(), queue, &job, first, count).await,
            }
            .expect("they are stored");
        }
    });
}

/// It stands for each job's own.
const NUMBER: u64 = 777_777_777;

async fn fill_sqlite(
    url: &str,
    queue: &str,
    job: &str,
    first: i64,
    count: u64,
) -> sqlx::Result<()> {
    let sql =
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1),
            ids AS (SELECT n, printf('%026d', n + ?2) AS id FROM numbers)
        INSERT INTO Jobs (job, id, job_type) SELECT
            CAST(replace(replace(?3, 'ID', id), ?4, n) AS BLOB), id, ?5 FROM ids WHERE ?1 > 0";
    let mut connection = SqliteConnection::connect(url).await?;
    let query = sqlx::query(sql).bind(count.cast_signed()).bind(first);
    let query = query.bind(job).bind(NUMBER.to_string()).bind(queue);
    query.execute(&mut connection).await?;
    // As it is after small transactions, which this was not.
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    sqlx::query(sql).execute(&mut connection).await.map(drop)
}

async fn fill_postgres(
    url: &str,
    queue: &str,
    job: &str,
    first: i64,
    count: u64,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO apalis.jobs (job, id, job_type, status, attempts, max_attempts, run_at, priority)
        SELECT convert_to(replace(replace($3, 'ID', id), $4, n::text), 'UTF8'), id, $5,
            'Pending', 0, 25, now() - interval '1 second', 0
        FROM (SELECT n, lpad((n + $2)::text, 26, '0') AS id FROM generate_series(1, $1) AS n) AS ids";
    let mut connection = PgConnection::connect(url).await?;
    let query = sqlx::query(sql).bind(count.cast_signed()).bind(first);
    let query = query.bind(job).bind(NUMBER.to_string()).bind(queue);
    query.execute(&mut connection).await.map(drop)
}
