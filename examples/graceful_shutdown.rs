//! SIGTERM or Ctrl-C: stop accepting, let requests end, drain their tasks, name what had to be left.
//!
//! ```text
//! cargo run --example graceful_shutdown
//! for n in 1 2 3; do curl -X POST "http://127.0.0.1:3000/orders/$n?seconds=$n"; done
//! ```
//!
//! `GRACE` is how many seconds requests have, and tasks after them; 10 by default. A second signal ends the waiting.

use std::{env, time::Duration};

use axum::{
    Router,
    extract::{Path, Query},
    http::StatusCode,
    routing::post,
};
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};
use tower_background_tasks::{AddTaskError, BackgroundTasks, BoxError, Runner, Task};

/// An order whose processing takes `seconds`. The 202 is a promise: it is processed, or named at shutdown.
async fn order(
    tasks: BackgroundTasks,
    Path(id): Path<String>,
    Query(query): Query<Value>,
) -> Result<StatusCode, AddTaskError> {
    let seconds = query["seconds"].as_str().unwrap_or("1").parse().ok();
    let Some(time) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return Ok(StatusCode::BAD_REQUEST);
    };
    let name = format!("order-{id}");
    tasks.try_add_task(
        Task::with_context(move |cx| async move {
            sleep(time).await;
            println!("done: {}", cx.name());
        })
        .named(name),
    )?;
    Ok(StatusCode::ACCEPTED)
}

/// Prints a line each second of a shutdown.
async fn progress(runner: Runner) {
    runner.shutting_down().await;
    loop {
        sleep(Duration::from_secs(1)).await;
        let tasks = runner.tasks();
        if let Some(oldest) = tasks.first() {
            let left = if tasks.len() == 1 { "task" } else { "tasks" };
            println!("{} {left} left, the oldest is {oldest}", tasks.len());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let grace = env::var("GRACE").unwrap_or_else(|_| "10".into());
    let grace = Duration::from_secs(grace.parse().map_err(|_| "GRACE is a number of seconds")?);
    let runner = Runner::builder().max_pending(100_000).build();
    let app = Router::new()
        .route("/orders/{id}", post(order))
        .layer(runner.layer());

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  curl -X POST 'http://{address}/orders/1?seconds=5'");

    tokio::spawn(progress(runner.clone()));
    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .requests(grace)
        .tasks(grace)
        .await?;
    println!("{report}\n{}", runner.stats());
    report.exit()
}
