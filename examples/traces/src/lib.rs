//! One trace from a request to the job that a worker runs for it, by OpenTelemetry.
//!
//! The server writes the current trace down beside the job: [`server`]. The worker reads it, and
//! makes the job's span a child of the request's, or a span of a trace of its own that is linked to
//! it: [`Relation`].

use apalis_core::{
    backend::{
        Backend, BackendConfig, WireFormatBackend, finalize::Durable, persistence::TaskPersistLayer,
    },
    error::WorkerError,
    task::Task,
    worker::builder::WorkerBuilder,
};
use apalis_sqlite::JsonCodec;
use axum::{Router, extract::Request, http::StatusCode, routing::post};
use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower_background_tasks::{
    AddJobError, BackgroundTasks, Job, JobContext, JobStore, Jobs, Runner, StoredJob, TaskResult,
};
use tower_http::trace::TraceLayer;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// How the span of a job is related to the span of its request.
#[derive(Clone, Copy, Debug)]
pub enum Relation {
    /// One trace has both: for a job that runs soon.
    Child,
    /// The job has a trace of its own, and a link: for one that may run hours later.
    Link,
}

/// Returns a server's runner, whose jobs know the trace in which they were added.
pub fn server(store: impl JobStore) -> Runner {
    Runner::builder()
        .job_store(store)
        .jobs(Jobs::new(()).register::<ShipOrder>())
        .job_trace(|trace| {
            let current = Span::current().context();
            TraceContextPropagator::new().inject_context(&current, trace);
        })
        .build()
}

/// Returns a worker's jobs, whose spans go on with the trace in which they were added.
pub fn worker(relation: Relation) -> Jobs<()> {
    let jobs = Jobs::new(()).register::<ShipOrder>();
    jobs.link_span(move |span, stored| {
        let request = TraceContextPropagator::new().extract(stored.trace());
        match relation {
            Relation::Child => drop(span.set_parent(request)),
            Relation::Link => span.add_link(request.span().span_context().clone()),
        }
    })
}

/// Returns the routes. The span of each request is outside of the layer.
pub fn routes(runner: &Runner) -> Router {
    let span = |request: &Request| {
        info_span!(
            "request",
            otel.name = "POST /orders",
            otel.kind = "server",
            url.path = request.uri().path()
        )
    };
    Router::new()
        .route("/orders", post(order))
        .layer(runner.layer())
        .layer(TraceLayer::new_for_http().make_span_with(span))
}

/// Runs a worker of apalis until `runner` shuts down.
///
/// # Errors
///
/// This returns an error when its store fails.
pub async fn work<B>(backend: B, jobs: Jobs<()>, runner: Runner) -> Result<(), WorkerError>
where
    B: Backend<Task = Task<Vec<u8>>>
        + BackendConfig<
            Args = StoredJob,
            Kind = Durable,
            Layer = TaskPersistLayer<JsonCodec<Value>, Value>,
        > + WireFormatBackend<Codec = JsonCodec<Vec<u8>>, Compact = Vec<u8>>
        + Send
        + Unpin
        + 'static,
{
    let shutdown = async move {
        runner.shutting_down().await;
        Ok::<_, WorkerError>(())
    };
    let worker = WorkerBuilder::new("worker").backend(backend).build(jobs);
    worker.run_until(shutdown).await
}

async fn order(tasks: BackgroundTasks) -> Result<(StatusCode, String), AddJobError> {
    let id = tasks.add_job(ShipOrder { number: 1 }).await?;
    Ok((StatusCode::ACCEPTED, id.to_string()))
}

#[derive(Serialize, Deserialize)]
struct ShipOrder {
    number: u64,
}

impl Job for ShipOrder {
    const NAME: &'static str = "ship-order";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        // A span of the job's own code, within the job's span.
        info_span!("carrier", order.number = self.number).in_scope(|| ());
        Ok(())
    }
}
