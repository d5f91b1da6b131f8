//! What an exporter is given of a request and its job, over both stores.

use std::{env, process, time::Duration};

use apalis_core::{backend::ext::BackendExt, error::WorkerError};
use apalis_postgres::{Config, PgPool, PostgresStorage};
use apalis_sqlite::{SqlitePool, SqlitePoolOptions, SqliteStorage};
use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tower_background_tasks::{JobId, PollInterval, PostgresStore, Runner, SqliteStore, StoredJob};
use traces::{Relation, routes, server, work, worker};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Keeps the spans of this thread, on which all tasks of a test run.
fn traced() -> (InMemorySpanExporter, DefaultGuard) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(spans);
    (exporter, subscriber.with(LevelFilter::INFO).set_default())
}

/// Posts an order.
async fn order(runner: &Runner) -> JobId {
    let request = Request::post("/orders").body(Body::empty()).unwrap();
    let response = routes(runner).oneshot(request).await.unwrap();
    let body = to_bytes(response.into_body(), 100).await.unwrap();
    str::from_utf8(&body).unwrap().parse().unwrap()
}

/// Has the worker run the job, and returns the spans of the request, of its job, and of the job's
/// own code.
async fn spans(
    runner: &Runner,
    exporter: &InMemorySpanExporter,
    working: impl Future<Output = Result<(), WorkerError>> + Send + 'static,
) -> [SpanData; 3] {
    let working = tokio::spawn(working);
    let found = timeout(Duration::from_secs(60), async {
        loop {
            let spans = exporter.get_finished_spans().unwrap();
            let named = |name| spans.iter().find(|span| span.name == name).cloned();
            if let (Some(request), Some(job), Some(of_job)) =
                (named("POST /orders"), named("ship-order"), named("carrier"))
            {
                return [request, job, of_job];
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let found = found.await.expect("the job runs");
    let _ = runner.shutdown(Duration::ZERO).await;
    working.await.unwrap().unwrap();
    found
}

fn check(relation: Relation, [request, job, of_job]: &[SpanData; 3]) {
    let (its, own) = (&request.span_context, &job.span_context);
    let links = &job.links.links;
    match relation {
        Relation::Child => {
            assert_eq!(own.trace_id(), its.trace_id());
            assert_eq!(job.parent_span_id, its.span_id());
            assert!(links.is_empty());
        }
        Relation::Link => {
            assert_ne!(own.trace_id(), its.trace_id());
            assert_eq!(job.parent_span_id, SpanId::INVALID);
            assert_eq!(links.len(), 1);
            assert_eq!(links[0].span_context.trace_id(), its.trace_id());
            assert_eq!(links[0].span_context.span_id(), its.span_id());
        }
    }
    assert_eq!(of_job.parent_span_id, own.span_id());
}

/// The propagator writes a `tracestate` though there is none.
fn check_headers(job: &[u8]) {
    let stored: StoredJob = serde_json::from_slice(job).unwrap();
    let headers: Vec<_> = stored.trace().keys().collect();
    assert_eq!(headers, ["traceparent"]);
}

fn polled() -> PollInterval {
    PollInterval::new(Duration::from_millis(10))
}

async fn on_sqlite(relation: Relation) {
    let (exporter, _subscribed) = traced();
    let pool: SqlitePool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    SqliteStorage::setup(&pool).await.unwrap();
    let storage = SqliteStorage::new(&pool);
    let runner = server(SqliteStore::new(storage.clone()));
    let id = order(&runner).await;
    let stored = sqlx::query_scalar("SELECT job FROM Jobs WHERE id = ?").bind(id.to_string());
    let stored: Vec<u8> = stored.fetch_one(&pool).await.unwrap();
    check_headers(&stored);
    let working = work(
        storage.poll_with_strategy(polled()),
        worker(relation),
        runner.clone(),
    );
    check(relation, &spans(&runner, &exporter, working).await);
}

async fn on_postgres(relation: Relation) {
    let Ok(url) = env::var("DURABLE_POSTGRES_URL") else {
        eprintln!(
            "!!! SKIPPED: {relation:?} on Postgres: DURABLE_POSTGRES_URL is not set; see .ci/engines"
        );
        return;
    };
    let (exporter, _subscribed) = traced();
    let pool = PgPool::connect(&url).await.unwrap();
    PostgresStorage::setup(&pool).await.unwrap();
    let queue = format!("traces-{relation:?}-{}", process::id());
    let storage = PostgresStorage::new(&pool).with_config(Config::default().queue(&queue));
    let runner = server(PostgresStore::new(storage.clone()));
    let id = order(&runner).await;
    let stored =
        sqlx::query_scalar("SELECT job FROM apalis.jobs WHERE id = $1").bind(id.to_string());
    let stored: Vec<u8> = stored.fetch_one(&pool).await.unwrap();
    check_headers(&stored);
    let working = work(
        storage.poll_with_strategy(polled()),
        worker(relation),
        runner.clone(),
    );
    check(relation, &spans(&runner, &exporter, working).await);
}

#[tokio::test]
async fn a_job_on_sqlite_is_a_child_of_its_request() {
    on_sqlite(Relation::Child).await;
}

#[tokio::test]
async fn a_job_on_sqlite_is_linked_to_its_request() {
    on_sqlite(Relation::Link).await;
}

#[tokio::test]
async fn a_job_on_postgres_is_a_child_of_its_request() {
    on_postgres(Relation::Child).await;
}

#[tokio::test]
async fn a_job_on_postgres_is_linked_to_its_request() {
    on_postgres(Relation::Link).await;
}
