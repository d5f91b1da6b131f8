//! A handler answers at once; a sync task sends the notification afterwards, on the blocking pool.
//!
//! ```text
//! cargo run --example send_notification
//! curl -X POST http://127.0.0.1:3000/send-notification/hello
//! ```

use std::{env, thread, time::Duration};

use axum::{Json, Router, extract::Path, routing::post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_background_tasks::{BackgroundTasks, BoxError, Runner};

async fn send_notification(tasks: BackgroundTasks, Path(message): Path<String>) -> Json<Value> {
    tasks.add_blocking_task(move || process(&message));
    Json(json!({ "message": "Notification sent in the background" }))
}

/// Sync code that takes its time, such as a mail server's answer.
fn process(message: &str) {
    thread::sleep(Duration::from_secs(5));
    println!("Background task processing: {message}");
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();

    let runner = Runner::new();
    let app = Router::new()
        .route("/send-notification/{message}", post(send_notification))
        .layer(runner.layer());

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  curl -X POST http://{address}/send-notification/hello");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .tasks(Duration::from_secs(30))
        .await?;
    println!("{report}");
    println!("{}", runner.stats());
    report.exit()
}
