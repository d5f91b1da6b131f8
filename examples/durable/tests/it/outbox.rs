//! A server is killed while it accepts orders: there are as many jobs as orders.
//!
//! `OUTBOX_KILLS=500` makes it as long as that.

use std::{
    collections::BTreeSet,
    env,
    hash::{BuildHasher, RandomState},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread::{scope, sleep},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{MethodRouter, post},
};
use durable::{Engine as Store, Settings, ShipOrder, engine::Orders};
use sqlx::{Connection, Database, PgConnection, PgPool, Pool, SqliteConnection, SqlitePool};
use tower_background_tasks::{BackgroundTasks, Runner, StoredJob};

use crate::{
    engines::{Engine, on_postgres, on_sqlite, shared},
    http::Client,
    process::Process,
    say,
    scene::{Scene, size},
};

#[test]
fn orders_and_jobs_are_the_same_though_the_server_is_killed_on_sqlite() {
    on_sqlite(are_the_same);
}

#[test]
fn orders_and_jobs_are_the_same_though_the_server_is_killed_on_postgres() {
    on_postgres("orders_and_jobs_are_the_same", are_the_same);
}

fn are_the_same(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        let worker = scene.work("worker");
        let tally = kill_again_and_again(&scene, scene.serve());
        let tables = tally.tell(&scene, "in one transaction");
        assert!(tally.accepted.is_subset(&tables.orders));
        assert_eq!(tables.without_job() + tables.without_order(), 0);
        assert_eq!(tables.jobs.len(), tables.job_rows);
        let orders: Vec<u64> = tables.orders.iter().copied().collect();
        assert_eq!(scene.wait_until_shipped(&orders).len(), orders.len());
        drop(worker);
    });
}

/// The control: the same kills, and an order that is committed beside its job.
#[test]
fn a_dual_write_leaves_orders_without_jobs_on_sqlite() {
    on_sqlite(leaves_orphans);
}

#[test]
fn a_dual_write_leaves_orders_without_jobs_on_postgres() {
    on_postgres("a_dual_write_leaves_orders_without_jobs", leaves_orphans);
}

fn leaves_orphans(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        let tally = kill_again_and_again(&scene, scene.serve_by(this_binary()));
        let tables = tally.tell(&scene, "a dual write");
        assert!(tables.without_job() > 0);
    });
}

/// Has this binary be the server.
fn this_binary() -> Command {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", "outbox::dual_write_server", "--ignored"]);
    command
}

#[test]
#[ignore = "the server of the control, in a process of its own"]
fn dual_write_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let settings = Settings::read(std::iter::empty()).unwrap();
        let store = Store::connect(&settings).await.unwrap();
        let runner = Runner::builder().job_store(store.store()).build();
        let app = Router::new()
            .route("/orders", dual_write(&settings.database).await)
            .layer(runner.layer());
        let listener = tokio::net::TcpListener::bind(&settings.address).await;
        axum::serve(listener.unwrap(), app).await.unwrap();
    });
}

async fn dual_write(url: &str) -> MethodRouter {
    if url.starts_with("sqlite") {
        let pool = SqlitePool::connect(url).await.unwrap();
        post(order_and_job::<sqlx::Sqlite>).with_state(pool)
    } else {
        let pool = PgPool::connect(url).await.unwrap();
        post(order_and_job::<sqlx::Postgres>).with_state(pool)
    }
}

async fn order_and_job<DB: Database<Connection: Orders>>(
    tasks: BackgroundTasks,
    State(pool): State<Pool<DB>>,
    Json(order): Json<ShipOrder>,
) -> StatusCode {
    let mut tx = pool.begin().await.unwrap();
    tx.insert_order(order.number).await.unwrap();
    tx.commit().await.unwrap();
    tasks.add_job(order).await.unwrap();
    StatusCode::ACCEPTED
}

/// What the clients know.
#[derive(Default)]
struct Tally {
    kills: u64,
    accepted: BTreeSet<u64>,
    /// The server was killed between the request and its answer.
    cut_off: BTreeSet<u64>,
}

fn kill_again_and_again(scene: &Scene, mut server: Process) -> Tally {
    let (kills, next) = (size("OUTBOX_KILLS", 20), AtomicU64::new(1));
    let over = AtomicBool::new(false);
    let mut tally = scope(|threads| {
        let order = || threads.spawn(|| order_until(scene, &next, &over));
        let clients: Vec<_> = (0..8).map(|_| order()).collect();
        for _ in 0..kills {
            scene.wait_for_server();
            sleep(Duration::from_micros(random() % 150_000));
            server.kill_and_restart();
        }
        scene.wait_for_server();
        over.store(true, Relaxed);
        let tallies = clients.into_iter().map(|client| client.join().unwrap());
        tallies.reduce(Tally::and).unwrap()
    });
    tally.kills = kills;
    tally
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// Each order has a number of its own, as nobody knows what became of one that got no answer.
fn order_until(scene: &Scene, next: &AtomicU64, over: &AtomicBool) -> Tally {
    let (mut client, mut tally) = (Client::new(scene.server), Tally::default());
    while !over.load(Relaxed) {
        let number = next.fetch_add(1, Relaxed);
        match client.order(&format!(r#"{{"number":{number}}}"#)) {
            Some(202) => drop(tally.accepted.insert(number)),
            Some(other) => panic!("{other}"),
            None if client.was_sent() => drop(tally.cut_off.insert(number)),
            None => sleep(Duration::from_millis(5)),
        }
    }
    tally
}

impl Tally {
    fn and(mut self, mut other: Self) -> Self {
        self.accepted.append(&mut other.accepted);
        self.cut_off.append(&mut other.cut_off);
        self
    }

    fn tell(&self, scene: &Scene, how: &str) -> Tables {
        let tables = Tables::read(scene);
        let committed = self.cut_off.intersection(&tables.orders).count();
        say!(
            "{how}, {}: {} kills, {} answered, {} cut off ({committed} of them after their commit); {} orders, {} jobs; {} orders without a job, {} jobs without an order",
            scene.engine,
            self.kills,
            self.accepted.len(),
            self.cut_off.len(),
            tables.orders.len(),
            tables.job_rows,
            tables.without_job(),
            tables.without_order(),
        );
        tables
    }
}

/// What the database knows.
struct Tables {
    orders: BTreeSet<u64>,
    jobs: BTreeSet<u64>,
    job_rows: usize,
}

impl Tables {
    fn read(scene: &Scene) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (orders, jobs) = runtime.block_on(async {
            match scene.engine {
                Engine::Sqlite => of_sqlite(scene.url()).await,
                _ => of_postgres(scene.url()).await,
            }
        });
        let jobs = jobs.unwrap();
        Self {
            orders: orders
                .unwrap()
                .into_iter()
                .map(i64::cast_unsigned)
                .collect(),
            job_rows: jobs.len(),
            jobs: jobs.iter().map(|job| number_of(job)).collect(),
        }
    }

    fn without_job(&self) -> usize {
        self.orders.difference(&self.jobs).count()
    }

    fn without_order(&self) -> usize {
        self.jobs.difference(&self.orders).count()
    }
}

fn number_of(job: &[u8]) -> u64 {
    let stored: StoredJob = serde_json::from_slice(job).unwrap();
    let order: ShipOrder = serde_json::from_str(stored.payload()).unwrap();
    order.number
}

type Rows = (sqlx::Result<Vec<i64>>, sqlx::Result<Vec<Vec<u8>>>);

async fn of_sqlite(url: &str) -> Rows {
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    let orders = sqlx::query_scalar("SELECT number FROM orders");
    let orders = orders.fetch_all(&mut connection).await;
    let jobs = sqlx::query_scalar("SELECT job FROM Jobs");
    (orders, jobs.fetch_all(&mut connection).await)
}

async fn of_postgres(url: &str) -> Rows {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let orders = sqlx::query_scalar("SELECT number FROM orders");
    let orders = orders.fetch_all(&mut connection).await;
    let jobs = sqlx::query_scalar("SELECT job FROM apalis.jobs");
    (orders, jobs.fetch_all(&mut connection).await)
}
