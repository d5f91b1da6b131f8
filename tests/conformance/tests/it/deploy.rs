//! Servers that are processes, and end by SIGTERM and one plan: beside clients that do not go, and under load without them.
//!
//! `DEPLOYS=100 cargo test --package conformance deploy -- --nocapture` restarts each server a hundred times, not ten.

mod client;
mod process;
mod server;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use self::{
    client::{Load, stay},
    process::Process,
    server::{DEADLINE, TASKS_OF_ALL_KINDS},
};
use crate::{chaos::number_from_env, support::soon};

/// The servers that end by the plan.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Axum,
    AxumServer,
    Hyper,
    Tonic,
}

/// This much may pass between the end of the plan and that of the process.
const SLACK: Duration = Duration::from_millis(200);

/// Not a test: the process that the others start.
#[test]
#[ignore = "a server, started by the tests beside it"]
fn server_process() {
    server::run();
}

async fn ends_in_time_and_names_all(kind: Kind, open: &[&str]) {
    let mut server = Process::start(kind, 0, "short").await;
    let clients = stay(kind, server.address()).await;
    if let Kind::Tonic = kind {
        server.line("hanging ").await; // the one that gets no answer
    }
    let begun = Instant::now();
    let ended = server.terminate().await;
    let took = begun.elapsed();
    println!("{kind:?}: {took:?} of {DEADLINE:?}, {:?}", ended.status);
    drop(clients);
    let told = &ended.told;
    assert!(took <= DEADLINE + SLACK, "{took:?}\n{told}");
    assert_eq!(ended.status.code(), Some(1), "{told}");
    for name in open {
        assert!(told.contains(name), "{name} is not named:\n{told}");
    }
    let (done, named) = (ended.numbers("done"), ended.numbers("named"));
    let all: HashSet<u64> = done.iter().chain(&named).copied().collect();
    assert_eq!(done.len() + named.len(), all.len(), "one end each");
    assert_eq!(all, (0..TASKS_OF_ALL_KINDS).collect(), "all named or done");
    assert!(named.len() as u64 > TASKS_OF_ALL_KINDS / 2);
}

/// What is told of the clients that do not go.
const OVER_HTTP1: [&str; 7] = [
    "GET /events: its response (200 OK) open after",
    "GET /download: its response (200 OK) open after",
    "POST /upload: no response after",
    "GET /socket: kept open for",
    "events ended Aborted",
    "download ended Aborted",
    "upload ended Cancelled",
];

#[tokio::test]
async fn axum_ends_in_time_beside_clients_that_do_not_go() {
    ends_in_time_and_names_all(Kind::Axum, &OVER_HTTP1).await;
}

#[tokio::test]
async fn axum_server_ends_in_time_beside_clients_that_do_not_go() {
    ends_in_time_and_names_all(Kind::AxumServer, &OVER_HTTP1).await;
}

#[tokio::test]
async fn hyper_ends_in_time_beside_clients_that_do_not_go() {
    ends_in_time_and_names_all(Kind::Hyper, &OVER_HTTP1).await;
}

#[tokio::test]
async fn tonic_ends_in_time_beside_clients_that_do_not_go() {
    let over_grpc = [
        "POST /grpc.health.v1.Health/Watch: its response (200 OK) open after",
        "POST /grpc.health.v1.Health/Check: no response after",
        "events ended Aborted",
    ];
    ends_in_time_and_names_all(Kind::Tonic, &over_grpc).await;
}

/// Each request whose handler began is answered, and its task has run, or is named, whenever the signal comes.
async fn restarts_lose_nothing(kind: Kind) {
    let deploys = number_from_env("DEPLOYS", 10);
    let port = process::free_port();
    let load = Load::start(kind, port);
    let (mut begun, mut done, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for deploy in 0..deploys {
        let server = Process::start(kind, port, "long").await;
        let answered = load.answers() + 50;
        soon(async {
            while load.answers() < answered {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        sleep(Duration::from_millis(deploy * 7 % 40)).await; // any moment
        let ended = server.terminate().await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.told);
        begun.extend(ended.numbers("begun"));
        done.extend(ended.numbers("done"));
        named.extend(ended.numbers("named"));
    }
    let answered = load.stop().await;
    let lost = begun.iter().filter(|number| !answered.contains(number));
    assert_eq!(
        lost.count(),
        0,
        "requests whose handlers began, without an answer"
    );
    let ends: HashSet<_> = done.iter().chain(&named).copied().collect();
    assert_eq!(ends.len(), done.len() + named.len(), "one end each");
    assert_eq!(ends, begun.iter().copied().collect(), "a task each");
    println!(
        "{kind:?}: {deploys} restarts, {} requests begun and answered, {} tasks done, {} named, 0 lost",
        begun.len(),
        done.len(),
        named.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_is_restarted_under_load() {
    restarts_lose_nothing(Kind::Axum).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_server_is_restarted_under_load() {
    restarts_lose_nothing(Kind::AxumServer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hyper_is_restarted_under_load() {
    restarts_lose_nothing(Kind::Hyper).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_is_restarted_under_load() {
    restarts_lose_nothing(Kind::Tonic).await;
}
