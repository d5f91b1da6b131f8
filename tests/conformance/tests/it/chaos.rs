//! Books that balance whatever happens: clients leaving at random, tasks failing in every way, limits hit, shutdown in the middle.
//! Once with limits and an observer, and once with nothing set, as limits and observers switch quick ways off.
//!
//! `CHAOS_SEED=7 CHAOS_REQUESTS=100000 cargo test --package conformance chaos -- --nocapture` plays another run.

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tower_background_tasks::{Runner, ShutdownReport, Stats, TaskId, TaskInfo};

use crate::{
    clients::soon,
    load::{client, router},
    matrix::silence_panics_on_purpose,
};

const CLIENTS: usize = 32;

pub(crate) fn number_from_env(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(number) => number
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// What the observer was told: of each task how often, and whether it was aborted.
type Told = Arc<Mutex<HashMap<TaskId, (usize, bool)>>>;

/// What the runner is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    /// Limits; chaos has an observer as well.
    Limited,
    /// Nothing.
    Plain,
}

fn runner(settings: Settings, told: &Told) -> Runner {
    match settings {
        Settings::Limited => limited(told.clone()),
        Settings::Plain => Runner::new(),
    }
}

fn limited(told: Told) -> Runner {
    Runner::builder()
        .max_running(16)
        .max_blocking(4)
        .max_pending(400)
        .on_task_end(move |report| {
            let end = report.end().as_str();
            let mut told = told.lock().unwrap();
            let entry = told.entry(report.id()).or_default();
            *entry = (entry.0 + 1, end == "aborted");
            drop(told);
            if end == "skipped" {
                panic!("on purpose: an observer");
            }
        })
        .build()
}

fn ended(stats: Stats) -> u64 {
    let Stats {
        completed,
        failed,
        panicked,
        timed_out,
        skipped,
        rejected,
        aborted,
        ..
    } = stats;
    completed + failed + panicked + timed_out + skipped + rejected + aborted
}

async fn play(settings: Settings, seed: u64, requests: usize) {
    let told = Told::default();
    let runner = runner(settings, &told);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router().layer(runner.layer());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let clients = (0..CLIENTS as u64).map(|number| {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(number);
        tokio::spawn(client(address, seed, requests / CLIENTS))
    });
    let clients = tokio::spawn(join_all(clients));
    // In the middle: by then about three fifths of the tasks have been added.
    let middle = requests as u64 * 6 / 5;
    while runner.stats().added < middle && !clients.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = runner.stats();
    let report = runner.shutdown(Duration::from_millis(200)).await;
    let left: usize = clients.await.unwrap().into_iter().map(Result::unwrap).sum();
    serving.abort();
    soon(runner.idle()).await;
    // Connections whose client left may still be on their way to notice.
    soon(async {
        while runner.stats().pending + runner.stats().awaiting_response > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    let stats = runner.stats();
    println!(
        "chaos: {settings:?}, seed {seed}, {requests} requests, {left} left early, shutdown at {} tasks with {} unfinished\n  {stats:?}",
        before.added,
        report.unfinished().len(),
    );
    assert_eq!(stats.added, ended(stats));
    let unended = (stats.awaiting_response, stats.pending, stats.running);
    assert_eq!(unended, (0, 0, 0));
    assert!(runner.tasks().is_empty());
    let named = report.unfinished().len() as u64;
    assert_eq!(stats.aborted, named, "what was aborted is what was named");
    if settings == Settings::Limited {
        check_told(&told.lock().unwrap(), stats, &report);
    }
}

/// Each task once; and what was aborted is what was named.
fn check_told(told: &HashMap<TaskId, (usize, bool)>, stats: Stats, report: &ShutdownReport) {
    let count = told.len() as u64;
    assert_eq!(count, stats.added, "tasks that the observer was told of");
    assert!(told.values().all(|(times, _)| *times == 1), "told twice");
    let aborted = told.iter().filter(|(_, told)| told.1);
    let aborted: HashSet<_> = aborted.map(|(id, _)| *id).collect();
    let named: HashSet<_> = report.unfinished().iter().map(TaskInfo::id).collect();
    assert_eq!(aborted, named, "what was aborted is what was named");
}

async fn play_all(settings: Settings) {
    silence_panics_on_purpose();
    let requests = number_from_env("CHAOS_REQUESTS", 20_000) as usize;
    let seeds = match env::var("CHAOS_SEED") {
        Ok(_) => vec![number_from_env("CHAOS_SEED", 0)],
        Err(_) => vec![1, 2, 3],
    };
    for seed in seeds {
        play(settings, seed, requests).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_whatever_happens() {
    play_all(Settings::Limited).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_where_nothing_is_set() {
    play_all(Settings::Plain).await;
}
