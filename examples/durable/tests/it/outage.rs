//! The store is away for seconds, under load.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use crate::{
    engines::{Engine, alone},
    http::Client,
    on_each_engine, say,
    scene::Scene,
};

const OUTAGE: Duration = Duration::from_secs(3);

on_each_engine!(handlers_answer_in_time_while_the_store_is_away_and_nothing_is_lost);

fn handlers_answer_in_time_while_the_store_is_away_and_nothing_is_lost(engine: Engine) {
    alone(|| {
        let scene = Scene::new(engine).with("STORE_TIMEOUT", "0.5");
        let answers = answers_over_an_outage("within 0.5 s", &scene);
        assert!(answers.refused > 0, "{answers:?}");
        // The limit, and what a machine under load adds.
        assert!(
            answers.longest < OUTAGE - Duration::from_millis(500),
            "{answers:?}"
        );
    });
}

#[test]
fn handlers_wait_for_a_store_that_comes_back_where_they_may() {
    alone(|| {
        let scene = Scene::new(Engine::Sqlite).with("STORE_TIMEOUT", "20");
        let answers = answers_over_an_outage("within 20 s", &scene);
        assert_eq!(answers.refused, 0, "{answers:?}");
        assert!(answers.longest > OUTAGE / 2, "{answers:?}");
    });
}

#[derive(Debug, Default)]
struct Answers {
    accepted: Vec<u64>,
    refused: usize,
    longest: Duration,
}

fn answers_over_an_outage(limit: &str, scene: &Scene) -> Answers {
    let (_server, _worker) = (scene.serve(), scene.work("worker"));
    let over = AtomicBool::new(false);
    let answers = scope(|threads| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                threads.spawn({
                    let over = &over;
                    move || answers_of(scene, client, over)
                })
            })
            .collect();
        let ends = Ends(&over);
        sleep(Duration::from_secs(1));
        take_away(scene);
        sleep(Duration::from_secs(2));
        drop(ends);
        let answers = clients.into_iter().map(|client| client.join().unwrap());
        answers.reduce(Answers::and).unwrap()
    });
    let shipped = scene.wait_until_shipped(&answers.accepted);
    let is_lost = |number: &&u64| !shipped.contains_key(number);
    let lost = answers.accepted.iter().filter(is_lost).count();
    say!(
        "outage of {OUTAGE:?}, {}, answers {limit}: accepted {}, refused {}, the longest answer took {:.1?}, lost {lost}",
        scene.engine,
        answers.accepted.len(),
        answers.refused,
        answers.longest
    );
    assert_eq!(lost, 0);
    answers
}

/// Stops the clients, also where the test fails before it would: the scope waits for them.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn take_away(scene: &Scene) {
    if scene.engine == Engine::Sqlite {
        return lock_sqlite(scene);
    }
    scene.engine.kill();
    sleep(OUTAGE);
    scene.engine.resume();
}

/// Somebody else's long transaction.
fn lock_sqlite(scene: &Scene) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options: SqliteConnectOptions = scene.url().parse().unwrap();
        let options = options.busy_timeout(Duration::from_secs(30));
        let mut connection = options.connect().await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE")
            .execute(&mut connection)
            .await
            .unwrap();
        tokio::time::sleep(OUTAGE).await;
        connection.close().await.unwrap();
    });
}

fn answers_of(scene: &Scene, client: u64, over: &AtomicBool) -> Answers {
    let mut connection = Client::new(scene.server);
    let mut answers = Answers::default();
    for number in client * 1_000_000.. {
        if over.load(Relaxed) {
            break;
        }
        let begun = Instant::now();
        match connection.order(&format!(r#"{{"number":{number}}}"#)) {
            Some(202) => answers.accepted.push(number),
            Some(503) => answers.refused += 1,
            other => panic!("{other:?}"),
        }
        answers.longest = answers.longest.max(begun.elapsed());
        sleep(Duration::from_millis(10));
    }
    answers
}

impl Answers {
    fn and(mut self, other: Self) -> Self {
        self.accepted.extend(other.accepted);
        self.refused += other.refused;
        self.longest = self.longest.max(other.longest);
        self
    }
}
