//! A handler answers at once; an async task calls another service afterwards.
//!
//! ```text
//! cargo run --example external_task
//! curl -X POST http://127.0.0.1:3000/process-external-task
//! ```
//!
//! An upstream that is down, slow, or answers nonsense is the task's failure, and is logged as such; the server goes on.

use std::{env, time::Duration};

use axum::{Json, Router, extract::State, routing::post};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, Task, TaskResult};

#[derive(Clone)]
struct Upstream {
    client: Client,
    base: String,
}

impl Upstream {
    async fn process(self) -> TaskResult {
        let url = format!("{}/posts/1", self.base);
        let response = self.client.get(url).send().await?.error_for_status()?;
        let post: Value = response.json().await?;
        println!("External task result: {post:#}");
        Ok(())
    }
}

async fn process_external_task(
    tasks: BackgroundTasks,
    State(upstream): State<Upstream>,
) -> Json<Value> {
    tasks.add_task(
        Task::new(upstream.process())
            .named("process-external-task")
            .timeout(Duration::from_secs(10)),
    );
    Json(json!({ "message": "External task processing triggered" }))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A failed task is a warning in the log.
    tracing_subscriber::fmt().init();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed already")?;

    let upstream = Upstream {
        client: Client::new(),
        base: env::var("UPSTREAM")
            .unwrap_or_else(|_| "https://jsonplaceholder.typicode.com".into()),
    };
    let runner = Runner::new();
    let app = Router::new()
        .route("/process-external-task", post(process_external_task))
        .with_state(upstream)
        .layer(runner.layer());

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  curl -X POST http://{address}/process-external-task");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .await?;
    println!("{report}");
    println!("{}", runner.stats());
    report.exit()
}
