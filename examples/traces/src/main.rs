//! A server and a worker in one process, which print their spans.
//!
//! ```text
//! cargo run --package traces        # RELATION=link: the job has a trace of its own
//! curl -X POST http://127.0.0.1:3000/orders
//! ```

use std::{env, time::Duration};

use apalis_core::backend::ext::BackendExt;
use apalis_sqlite::{SqlitePoolOptions, SqliteStorage};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_stdout::SpanExporter;
use tokio::net::TcpListener;
use tower_background_tasks::{BoxError, PollInterval, SqliteStore};
use traces::{Relation, routes, server, work, worker};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(SpanExporter::default())
        .build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("traces"))
        .with_location(false); // a task's span has the place where the task was added
    tracing_subscriber::registry()
        .with(spans)
        .with(LevelFilter::INFO)
        .init();

    // One connection: each has a memory of its own.
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;
    SqliteStorage::setup(&pool).await?;
    let storage = SqliteStorage::new(&pool);
    let runner = server(SqliteStore::new(storage.clone()));
    let relation = match env::var("RELATION").as_deref() {
        Ok("link") => Relation::Link,
        _ => Relation::Child,
    };
    let polled = storage.poll_with_strategy(PollInterval::new(Duration::from_millis(100)));
    let working = tokio::spawn(work(polled, worker(relation), runner.clone()));

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!(
        "Listening on http://{}; Ctrl-C or SIGTERM stops it",
        listener.local_addr()?
    );
    let routes = routes(&runner);
    let report = runner
        .serve(|shutdown| axum::serve(listener, routes).with_graceful_shutdown(shutdown))
        .await?;
    working.await??;
    provider.shutdown()?;
    report.exit()
}
