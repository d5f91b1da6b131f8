//! At full load for a while: memory stays flat after warm-up, and no task grows old. Once with limits, and once with nothing set.
//!
//! `SOAK_SECONDS=600 cargo test --release --package conformance soak -- --nocapture` runs each for longer than the 5 seconds of every
//! day.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tower_background_tasks::{Runner, TaskInfo};

use crate::{
    chaos::{Settings, number_from_env},
    clients::soon,
    load::{client, router},
    matrix::silence_panics_on_purpose,
};

const CLIENTS: u64 = 16;
/// No task of this load runs longer than some milliseconds, or waits behind more than `max_pending` of them.
const OLDEST: Duration = Duration::from_secs(5);

/// The process's resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or("VmRSS: 0");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

fn runner(settings: Settings) -> Runner {
    match settings {
        Settings::Limited => Runner::builder()
            .max_running(64)
            .max_blocking(8)
            .max_pending(2_000)
            .build(),
        Settings::Plain => Runner::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_and_no_task_grows_old() {
    silence_panics_on_purpose();
    match env::var("SOAK_SETTINGS").as_deref() {
        Ok("limited") => soak(Settings::Limited).await,
        Ok(_) => soak(Settings::Plain).await,
        Err(_) => ["limited", "plain"]
            .into_iter()
            .for_each(in_its_own_process),
    }
}

/// In this one, memory that other tests have given back would take in what leaks.
fn in_its_own_process(settings: &str) {
    let soak = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("soak::memory_stays_flat_and_no_task_grows_old")
        .env("SOAK_SETTINGS", settings)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&soak.stdout);
    let failed = String::from_utf8_lossy(&soak.stderr);
    assert!(soak.status.success(), "{settings}: {told}{failed}");
    told.lines()
        .filter(|line| line.contains("oldest task") || line.contains("Stats"))
        .for_each(|line| println!("{line}"));
}

async fn soak(settings: Settings) {
    let time = Duration::from_secs(number_from_env("SOAK_SECONDS", 5));
    let runner = runner(settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router().layer(runner.layer());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|number| {
        tokio::spawn(async move {
            let mut round = number;
            while begun.elapsed() < time {
                client(address, round, 100).await;
                round += CLIENTS;
            }
        })
    });
    let clients = tokio::spawn(join_all(clients));
    let (mut memory, mut oldest) = (Vec::new(), Duration::ZERO);
    while !clients.is_finished() {
        tokio::time::sleep(time / 50).await;
        memory.push(resident());
        let age = runner.tasks().first().map_or(Duration::ZERO, TaskInfo::age);
        oldest = oldest.max(age);
    }
    clients.await.unwrap();
    soon(runner.idle()).await;
    serving.abort();

    // Each the largest of a fifth of the run; the first fifth is the warm-up.
    let fifth = memory.len() / 5;
    let largest = |part: usize| {
        *memory[part * fifth..(part + 1) * fifth]
            .iter()
            .max()
            .unwrap()
    };
    let (start, middle, end) = (largest(1), largest(2), largest(4));
    let stats = runner.stats();
    println!(
        "soak: {settings:?}, {time:?}, {} tasks, resident {start} KiB after warm-up, {middle} in the middle, {end} at the end, oldest task {oldest:?}\n  {stats:?}",
        stats.added,
    );
    assert!(
        end < start + start / 4 + 8_192,
        "memory grew from {start} to {end} KiB"
    );
    assert!(oldest < OLDEST, "{oldest:?}");
}
