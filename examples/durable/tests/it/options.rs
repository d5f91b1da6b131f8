//! What a single job asks of its store: a key, a time.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use durable::{Engine as Store, Settings, ShipOrder, engine::Orders};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::{runtime::Runtime, task::JoinSet, time::sleep};
use tower_background_tasks::{AddJobError, Job, JobContext, JobId, Runner, StoredJob, TaskResult};

use crate::{
    engines::{Engine, on_postgres, on_sqlite, shared},
    on_each_engine,
    scene::Scene,
};

on_each_engine!(a_job_that_is_put_off_is_run_once_it_is_due);

fn a_job_that_is_put_off_is_run_once_it_is_due(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        let (delay, begun) = (Duration::from_secs(2), Instant::now());
        with_runner(&scene, async |runner| {
            runner.add_job(order(1).after(delay)).await.unwrap();
            runner.add_job(order(2)).await.unwrap();
        });
        let _worker = scene.work("worker");
        scene.wait_until_shipped(&[2]);
        assert!(!scene.shipped().contains_key(&1));
        assert_eq!(scene.wait_until_shipped(&[1]).len(), 2);
        assert!(begun.elapsed() >= delay);
    });
}

#[test]
fn of_10_000_adds_at_once_on_100_keys_100_are_jobs_on_sqlite() {
    on_sqlite(are_jobs);
}

#[test]
fn of_10_000_adds_at_once_on_100_keys_100_are_jobs_on_postgres() {
    on_postgres("of_10_000_adds_at_once_on_100_keys_100_are_jobs", are_jobs);
}

fn are_jobs(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        with_runner(&scene, async |runner| {
            let mut adds = JoinSet::new();
            for add in 0..10_000 {
                adds.spawn(add_once(runner.clone(), add % 100));
            }
            let (mut jobs, mut duplicates) = (HashMap::new(), Vec::new());
            for (key, added) in adds.join_all().await {
                match added {
                    Ok(id) => assert_eq!(jobs.insert(key, id), None),
                    Err(error) => duplicates.push((key, error.duplicate().unwrap().id())),
                }
            }
            assert_eq!((jobs.len(), duplicates.len()), (100, 9_900));
            for (key, id) in duplicates {
                assert_eq!(id, jobs.get(&key).copied());
            }
        });
    });
}

async fn add_once(runner: Runner, key: u64) -> (u64, Result<JobId, AddJobError>) {
    let order = order(key).unique(format!("order-{key}"));
    (key, runner.add_job(order).await)
}

#[test]
fn a_transaction_goes_on_after_a_duplicate_on_sqlite() {
    on_sqlite(|engine| {
        shared(|| {
            let scene = Scene::new(engine);
            with_runner(&scene, async |runner| {
                let mut connection = SqliteConnection::connect(scene.url()).await.unwrap();
                let mut tx = connection.begin().await.unwrap();
                runner.add_job_in(&mut *tx, once()).await.unwrap();
                let again = runner.add_job_in(&mut *tx, once()).await;
                assert!(again.unwrap_err().duplicate().is_some());
                tx.insert_order(1).await.unwrap();
                tx.commit().await.unwrap();
            });
        });
    });
}

#[test]
fn a_transaction_goes_on_after_a_duplicate_on_postgres() {
    on_postgres("a_transaction_goes_on_after_a_duplicate", |engine| {
        shared(|| {
            let scene = Scene::new(engine);
            with_runner(&scene, async |runner| {
                let mut connection = PgConnection::connect(scene.url()).await.unwrap();
                let mut tx = connection.begin().await.unwrap();
                runner.add_job_in(&mut *tx, once()).await.unwrap();
                let again = runner.add_job_in(&mut *tx, once()).await;
                assert!(again.unwrap_err().duplicate().is_some());
                tx.insert_order(1).await.unwrap();
                tx.commit().await.unwrap();
            });
        });
    });
}

#[test]
fn a_job_that_is_rolled_back_gives_its_key_free_on_sqlite() {
    on_sqlite(|engine| {
        shared(|| {
            let scene = Scene::new(engine);
            with_runner(&scene, async |runner| {
                let mut connection = SqliteConnection::connect(scene.url()).await.unwrap();
                let mut tx = connection.begin().await.unwrap();
                runner.add_job_in(&mut *tx, once()).await.unwrap();
                tx.rollback().await.unwrap();
                runner.add_job(once()).await.unwrap();
            });
        });
    });
}

#[test]
fn of_two_transactions_with_a_key_the_second_waits_for_the_first_on_postgres() {
    on_postgres(
        "of_two_transactions_with_a_key_the_second_waits",
        |engine| {
            shared(|| {
                for commits in [true, false] {
                    let scene = Scene::new(engine);
                    with_runner(&scene, async |runner| {
                        let mut connection = PgConnection::connect(scene.url()).await.unwrap();
                        let mut tx = connection.begin().await.unwrap();
                        let first = runner.add_job_in(&mut *tx, once()).await.unwrap();
                        let second = tokio::spawn({
                            let runner = runner.clone();
                            async move { runner.add_job(once()).await }
                        });
                        let mut observer = PgConnection::connect(scene.url()).await.unwrap();
                        wait_for_a_lock(&mut observer).await;
                        match commits {
                            true => tx.commit().await.unwrap(),
                            false => tx.rollback().await.unwrap(),
                        }
                        let second = second.await.unwrap();
                        match commits {
                            true => {
                                let error = second.unwrap_err();
                                assert_eq!(error.duplicate().unwrap().id(), Some(first));
                            }
                            false => assert_ne!(second.unwrap(), first),
                        }
                    });
                }
            });
        },
    );
}

/// sqlx does not know of this transaction.
#[test]
fn a_transaction_begun_by_hand_decides_on_postgres() {
    on_postgres("a_transaction_begun_by_hand_decides", |engine| {
        shared(|| {
            let scene = Scene::new(engine);
            with_runner(&scene, async |runner| {
                let mut connection = PgConnection::connect(scene.url()).await.unwrap();
                sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
                runner.add_job_in(&mut connection, once()).await.unwrap();
                sqlx::query("ROLLBACK")
                    .execute(&mut connection)
                    .await
                    .unwrap();

                let id = runner.add_job(once()).await.unwrap(); // the key is free
                sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
                connection.insert_order(2).await.unwrap();
                let again = runner.add_job_in(&mut connection, once()).await;
                assert_eq!(again.unwrap_err().duplicate().unwrap().id(), Some(id));
                sqlx::query("COMMIT")
                    .execute(&mut connection)
                    .await
                    .unwrap();
                let orders = sqlx::query_scalar("SELECT count(*) FROM orders");
                let orders: i64 = orders.fetch_one(&mut connection).await.unwrap();
                assert_eq!(orders, 1);
            });
        });
    });
}

/// The names of both, each with its key, are the same text.
#[derive(Serialize, Deserialize)]
struct Ship;

impl Job for Ship {
    const NAME: &'static str = "ship";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct ShipPart;

impl Job for ShipPart {
    const NAME: &'static str = "ship/part";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        Ok(())
    }
}

#[test]
fn a_key_is_of_one_name_on_sqlite() {
    on_sqlite(a_key_is_of_one_name);
}

#[test]
fn a_key_is_of_one_name_on_postgres() {
    on_postgres("a_key_is_of_one_name", a_key_is_of_one_name);
}

fn a_key_is_of_one_name(engine: Engine) {
    shared(|| {
        with_runner(&Scene::new(engine), async |runner| {
            runner.add_job(Ship.unique("part/1")).await.unwrap();
            runner.add_job(ShipPart.unique("1")).await.unwrap();
        });
    });
}

/// An index of Postgres cannot hold such a key, and no text of Postgres a NUL.
#[test]
fn a_key_that_postgres_cannot_hold_is_refused_for_good() {
    on_postgres("a_key_that_postgres_cannot_hold_is_refused", |engine| {
        shared(|| {
            with_runner(&Scene::new(engine), async |runner| {
                let longest = "k".repeat(2_000 - "4:ship/".len());
                runner.add_job(Ship.unique(&*longest)).await.unwrap();
                for key in [longest + "k", "\0".to_owned()] {
                    let error = runner.add_job(Ship.unique(key)).await.unwrap_err();
                    assert!(error.is_permanent(), "{error}");
                }
            });
        });
    });
}

#[test]
fn a_job_that_is_not_there_cannot_be_postponed_on_sqlite() {
    on_sqlite(a_job_that_is_not_there_cannot_be_postponed);
}

#[test]
fn a_job_that_is_not_there_cannot_be_postponed_on_postgres() {
    let name = "a_job_that_is_not_there_cannot_be_postponed";
    on_postgres(name, a_job_that_is_not_there_cannot_be_postponed);
}

fn a_job_that_is_not_there_cannot_be_postponed(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        Runtime::new().unwrap().block_on(async {
            let store = Store::connect(&settings(&scene)).await.unwrap().store();
            let stored = StoredJob::new(&Ship).unwrap();
            let (id, time) = (stored.id(), SystemTime::now());
            assert!(store.postpone(id, time).await.is_err());
            store.push(stored).await.unwrap();
            store.postpone(id, time).await.unwrap();
        });
    });
}

/// Waits until a connection to this database waits for another's transaction.
async fn wait_for_a_lock(observer: &mut PgConnection) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    loop {
        let waiting: i64 = sqlx::query_scalar(sql)
            .fetch_one(&mut *observer)
            .await
            .unwrap();
        if waiting == 1 {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn an_add_that_is_dropped_leaves_a_whole_job_or_none_on_sqlite() {
    on_sqlite(leaves_a_whole_job_or_none);
}

#[test]
fn an_add_that_is_dropped_leaves_a_whole_job_or_none_on_postgres() {
    let name = "an_add_that_is_dropped_leaves_a_whole_job_or_none";
    on_postgres(name, leaves_a_whole_job_or_none);
}

fn leaves_a_whole_job_or_none(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        with_runner(&scene, async |runner| {
            let mut dropped = 0;
            for number in 0..300 {
                let job = || order(number).unique(format!("order-{number}"));
                let polls = number as usize % 6 + 1;
                dropped += usize::from(polled(polls, runner.add_job(job())).await.is_none());
                if let Err(error) = runner.add_job(job()).await {
                    assert!(error.duplicate().unwrap().id().is_some());
                }
            }
            // No store has answered at the first poll.
            assert!(dropped >= 50, "only {dropped} were dropped");
        });
        let _worker = scene.work("worker");
        let shipped = scene.wait_until_shipped(&Vec::from_iter(0..300));
        assert_eq!(shipped.len(), 300);
        assert!(shipped.values().all(|&times| times == 1));
    });
}

/// Polls a future so often at most, and drops it.
async fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn once() -> tower_background_tasks::JobRequest<ShipOrder> {
    order(1).unique("order-1")
}

fn order(number: u64) -> ShipOrder {
    ShipOrder {
        number,
        ..ShipOrder::default()
    }
}

fn settings(scene: &Scene) -> Settings {
    let mut settings = Settings::read([scene.url().to_owned()].into_iter()).unwrap();
    scene.queue().clone_into(&mut settings.queue);
    settings.store_timeout = Duration::from_secs(120);
    settings
}

/// A runner in this process, whose store is the scene's.
fn with_runner(scene: &Scene, act: impl AsyncFnOnce(Runner)) {
    let settings = settings(scene);
    Runtime::new().unwrap().block_on(async {
        let store = Store::connect(&settings).await.unwrap().store();
        let runner = Runner::builder().job_store(store);
        act(runner.job_store_timeout(settings.store_timeout).build()).await;
    });
}
