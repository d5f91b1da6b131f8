//! Tasks that come with the response, and no layer: for a service that hands its queue on by itself.
//!
//! ```text
//! cargo run --example response_tasks
//! curl http://127.0.0.1:3000/
//! ```

use std::env;

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tower_background_tasks::{BackgroundTasks, BoxError, ResponseBody, Runner};

/// Knows nothing of runners: it returns its tasks as a part of the response.
async fn page() -> impl IntoResponse {
    let tasks = BackgroundTasks::new();
    tasks.add_task(async { println!("counted a visit") });
    (tasks, "hello\n")
}

/// Hands them to the runner, together with a task of its own. Behind `BackgroundTasksLayer` this is not needed.
async fn visit(State(runner): State<Runner>) -> Response<ResponseBody<Body>> {
    let tasks = BackgroundTasks::new();
    tasks.add_task(async { println!("answered") });
    runner.attach(page().await.into_response(), tasks)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let runner = Runner::new();
    let app = Router::new()
        .route("/", get(visit))
        .with_state(runner.clone());

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  curl http://{address}/");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .await?;
    println!("{report}");
    report.exit()
}
