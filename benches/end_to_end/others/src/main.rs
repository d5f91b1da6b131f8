//! `end_to_end_others MODE`: the server of `end_to_end_server` as other projects write it.
//!
//! `axum_tasks` stores and queues the task before the answer, and has workers run it.
//! `trillium` calls a closure when it has sent the answer, on the connection.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::State, routing::get, serve::ListenerExt};
use axum_tasks::{AppTasks, CancellationToken, Task, TaskHandler, TaskOutput, spawn_task_workers};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, runtime::Builder, task::yield_now};

static RAN: AtomicU64 = AtomicU64::new(0);

fn ran() -> String {
    RAN.load(Ordering::Relaxed).to_string()
}

/// The task, the same in every mode.
fn count() {
    RAN.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug, Task, Serialize, Deserialize)]
struct Count {}

impl Count {
    async fn execute(&self) -> TaskOutput {
        count();
        TaskOutput::Success(serde_json::Value::Null)
    }
}

async fn axum_tasks(address: String, workers: usize) {
    let tasks = AppTasks::new();
    spawn_task_workers(tasks.clone(), CancellationToken::new(), Some(workers));
    let handler = async |State(tasks): State<AppTasks>| {
        while tasks.queue(Count {}).await.is_err() {
            yield_now().await; // its queue is full
        }
        "hello"
    };
    let app = Router::new()
        .route("/", get(handler))
        .route("/ran", get(async || ran()))
        .with_state(tasks);
    let listener = TcpListener::bind(address).await.unwrap();
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, app).await.unwrap();
}

async fn trillium(address: String) {
    let handler = async |mut conn: trillium::Conn| {
        if conn.path() == "/ran" {
            return conn.ok(ran());
        }
        let http: &mut trillium_http::Conn<_> = conn.as_mut();
        http.after_send(|_| count());
        conn.ok("hello")
    };
    let (host, port) = address.rsplit_once(':').unwrap();
    trillium_tokio::config()
        .with_host(host)
        .with_port(port.parse().unwrap())
        .with_nodelay()
        .run_async(handler)
        .await;
}

fn main() {
    let mode = env::args().nth(1).expect("which mode?");
    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let workers = env::var("WORKERS").map_or(2, |workers| workers.parse().unwrap());
    let mut builder = Builder::new_multi_thread();
    let runtime = builder
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match &*mode {
            "axum_tasks" => axum_tasks(address, workers).await,
            "trillium" => trillium(address).await,
            other => panic!("no mode {other:?}"),
        }
    });
}
