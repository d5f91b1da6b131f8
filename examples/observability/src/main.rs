//! What runs, what waits, what failed, and on whose behalf: tracing to the terminal, `/metrics` for Prometheus, and a page.
//!
//! ```text
//! cargo run --package observability
//! for n in 1 2 3; do curl -X POST http://127.0.0.1:3000/orders/$n; done
//! curl -X POST http://127.0.0.1:3000/exports/60      # a task of 60 seconds that tells how far it has come
//! curl http://127.0.0.1:3000/metrics
//! ```
//!
//! Then open <http://127.0.0.1:3000/admin/tasks>. Beside this file are `grafana.json`, a dashboard for Grafana, and `alerts.yml`, rules for
//! Prometheus.

use std::{env, io::IsTerminal, thread, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Path, State},
    http::StatusCode,
    routing::{get, post},
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, time::sleep};
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, Task, install_panic_hook};
use tracing::info;

/// Upper bounds in seconds. Without them, the exporter makes summaries, which cannot be added up over instances.
const BUCKETS: [f64; 11] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0,
];

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

/// Tells how far it has come. The name is made at run time: the metrics have one label for all of these.
async fn export(tasks: BackgroundTasks, Path(seconds): Path<u32>) -> StatusCode {
    let work = Task::with_context(move |cx| async move {
        for second in 0..seconds {
            cx.progress(f64::from(second) / f64::from(seconds));
            sleep(Duration::from_secs(1)).await;
        }
    });
    tasks.add_task(work.named(format!("export-of-{seconds}-seconds")));
    StatusCode::ACCEPTED
}

/// Blocking: once it runs, it cannot be stopped.
async fn archive(tasks: BackgroundTasks, Path(seconds): Path<u64>) -> StatusCode {
    let work = move || thread::sleep(Duration::from_secs(seconds));
    tasks.add_task(Task::blocking(work).named("archive"));
    StatusCode::ACCEPTED
}

async fn stats(State(runner): State<Runner>) -> String {
    format!("{}\n", runner.stats())
}

async fn metrics(runner: Runner, prometheus: PrometheusHandle) -> String {
    runner.record_gauges();
    prometheus.render()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_ansi(std::io::stdout().is_terminal())
        .init();
    install_panic_hook();
    // Before the runner, which tells it what its metrics mean.
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)?
        .install_recorder()?;
    let runner = Runner::builder()
        .max_pending(10_000)
        .max_running(100)
        .warn_slow_poll(Duration::from_millis(10))
        .route(|request| Some(request.extensions.get::<MatchedPath>()?.as_str()))
        .build();
    let for_metrics = runner.clone();

    let app = Router::new()
        .route("/orders/{number}", post(order))
        .route("/exports/{seconds}", post(export))
        .route("/archives/{seconds}", post(archive))
        .layer(runner.layer())
        // After the layer: they have no tasks. These are for operators alone: add your authentication.
        .route("/stats", get(stats))
        .route(
            "/metrics",
            get(async || metrics(for_metrics, prometheus).await),
        )
        .nest_service("/admin/tasks", runner.dashboard().allow_cancel())
        .with_state(runner.clone());

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  for n in 1 2 3; do curl -X POST http://{address}/orders/$n; done");
    println!("  curl -X POST http://{address}/exports/60; curl http://{address}/metrics");
    println!("and open http://{address}/admin/tasks");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .tasks(Duration::from_secs(1))
        .await?;
    println!("{report}");
    report.exit()
}
