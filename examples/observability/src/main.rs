//! What runs, what waits, what failed, and on whose behalf: tracing to the terminal, `/metrics` for Prometheus, `/tasks` as JSON.
//!
//! ```text
//! cargo run --package observability
//! for n in 1 2 3; do curl -X POST http://127.0.0.1:3000/orders/$n; done
//! curl -X POST http://127.0.0.1:3000/exports/60      # a task of 60 seconds …
//! curl http://127.0.0.1:3000/tasks                   # … that is seen here
//! curl -X DELETE http://127.0.0.1:3000/tasks/7       # … and ended under its `id`, which the log has as `task.id`
//! curl http://127.0.0.1:3000/metrics
//! ```

use std::{env, io::IsTerminal, thread, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, Task, TaskId, TaskInfo};
use tracing::info;

async fn order(Path(number): Path<u32>) -> StatusCode {
    accept(number).await;
    StatusCode::ACCEPTED
}

/// Deep in the application: nobody passed the queue down to here.
async fn accept(number: u32) {
    let Some(tasks) = BackgroundTasks::current() else {
        return;
    };
    tasks.add_task(Task::new(charge(number)).named("charge"));
    tasks.add_task(Task::blocking(move || receipt(number)).named("receipt"));
}

/// Fails for every third order. Its lines say for which: the span that each task runs in has the request's method and path, and so
/// has the event of its end.
async fn charge(number: u32) -> Result<(), BoxError> {
    sleep(Duration::from_millis(20)).await;
    if number % 3 == 0 {
        return Err(format!("order {number}: the card is refused").into());
    }
    info!("charged");
    Ok(())
}

fn receipt(number: u32) {
    thread::sleep(Duration::from_millis(5));
    info!(number, "receipt printed");
}

/// The name is made at run time: the metrics have one label for all of these.
async fn export(tasks: BackgroundTasks, Path(seconds): Path<u64>) -> StatusCode {
    let work = sleep(Duration::from_secs(seconds));
    tasks.add_task(Task::new(work).named(format!("export-of-{seconds}-seconds")));
    StatusCode::ACCEPTED
}

/// Blocking: once it runs, it cannot be stopped.
async fn archive(tasks: BackgroundTasks, Path(seconds): Path<u64>) -> StatusCode {
    let work = move || thread::sleep(Duration::from_secs(seconds));
    tasks.add_task(Task::blocking(work).named("archive"));
    StatusCode::ACCEPTED
}

/// For operators alone: anybody could guess the number.
async fn cancel(State(runner): State<Runner>, Path(id): Path<u64>) -> StatusCode {
    let id = TaskId::from(id);
    match runner.cancel(id) {
        true => StatusCode::NO_CONTENT,
        false if runner.tasks().iter().any(|task| task.id() == id) => StatusCode::CONFLICT,
        false => StatusCode::NOT_FOUND,
    }
}

async fn tasks(State(runner): State<Runner>) -> Json<Value> {
    Json(runner.tasks().iter().map(row).collect())
}

fn row(task: &TaskInfo) -> Value {
    json!({
        "id": task.id().as_u64(),
        "name": task.name(),
        "kind": task.kind().as_str(),
        "age": task.age().as_secs_f64(),
        "running_for": task.running_for().map(|time| time.as_secs_f64()),
        "request": task.method().map(|method| format!("{method} {}", task.path().unwrap_or_default())),
        "added_at": task.location().to_string(),
    })
}

async fn stats(State(runner): State<Runner>) -> String {
    format!("{:?}\n", runner.stats())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_ansi(std::io::stdout().is_terminal())
        .init();
    // Before the runner, which tells it what its metrics mean.
    let prometheus: PrometheusHandle = PrometheusBuilder::new().install_recorder()?;
    let runner = Runner::builder()
        .max_pending(10_000)
        .warn_slow_poll(Duration::from_millis(10))
        .build();

    let app = Router::new()
        .route("/orders/{number}", post(order))
        .route("/exports/{seconds}", post(export))
        .route("/archives/{seconds}", post(archive))
        .layer(runner.layer())
        // Behind the layer: they have no tasks.
        .route("/tasks", get(tasks))
        .route("/tasks/{id}", delete(cancel))
        .route("/stats", get(stats))
        .route("/metrics", get(async move || prometheus.render()))
        .with_state(runner.clone());

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  for n in 1 2 3; do curl -X POST http://{address}/orders/$n; done");
    println!("  curl -X POST http://{address}/exports/60; curl http://{address}/tasks");
    println!("  curl -X DELETE http://{address}/tasks/7; curl http://{address}/metrics");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .tasks(Duration::from_secs(1))
        .await?;
    println!("{report}");
    report.exit()
}
