//! SIGTERM or Ctrl-C: stop accepting, let requests end, drain their tasks, name what had to be left.
//!
//! ```text
//! cargo run --example graceful_shutdown
//! for n in 1 2 3; do curl -X POST http://127.0.0.1:3000/orders/$n?seconds=$n; done
//! ```
//!
//! `GRACE` is how many seconds the tasks have; 10 by default.

use std::{env, pin::pin, process::ExitCode, time::Duration};

use axum::{
    Router,
    extract::{Path, Query},
    http::StatusCode,
    routing::post,
};
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};
use tower_background_tasks::{
    AddTaskError, BackgroundTasks, BoxError, Runner, ShutdownReport, Task,
};

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

/// Waits for the runner's tasks, with a line each second.
async fn drain(runner: &Runner, grace: Duration) -> ShutdownReport {
    let (mut shutdown, mut again) = (pin!(runner.shutdown(grace)), pin!(stop_signal()));
    loop {
        tokio::select! {
            report = &mut shutdown => return report,
            // A second signal ends the grace.
            () = &mut again => return runner.shutdown(Duration::ZERO).await,
            () = sleep(Duration::from_secs(1)) => {
                let tasks = runner.tasks();
                if let Some(oldest) = tasks.first() {
                    println!("{} tasks left, the oldest is {oldest}", tasks.len());
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
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
    println!("Listening on http://{address}; Ctrl-C or SIGTERM stops it. Try:");
    println!("  curl -X POST http://{address}/orders/1?seconds=5");

    let serving = axum::serve(listener, app).with_graceful_shutdown(stop_signal());
    let overdue = async {
        stop_signal().await;
        sleep(grace).await;
    };
    // One slow client must not keep the tasks from being drained.
    tokio::select! {
        served = serving => served?,
        () = overdue => println!("Some requests did not end in {grace:?}"),
    }
    println!("Draining; tasks have {grace:?}, or until a second signal");
    let report = drain(&runner, grace).await;
    println!("{report}\n{:?}", runner.stats());
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn stop_signal() {
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = ctrl_c => {}
        () = terminate => {}
    }
}
