//! What an OpenTelemetry exporter is given of tasks: over all ends, async and blocking ones, as
//! children and as links. A binary of its own, as the subscriber is the whole process's.

use std::{
    collections::HashMap,
    future::pending,
    sync::{LazyLock, Once},
    thread,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::MatchedPath,
    http::{Method, Request},
    routing::post,
};
use opentelemetry::{
    Value,
    trace::{SpanId, SpanKind, Status, TracerProvider},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::ServiceExt;
use tower_background_tasks::{
    BackgroundTasks, Runner, RunnerBuilder, SpanRelation, Task, TaskInfo,
};
use tower_http::trace::TraceLayer;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;

const ENDS: [&str; 6] = [
    "completed",
    "failed",
    "panicked",
    "timed_out",
    "skipped",
    "aborted",
];

static EXPORTER: LazyLock<InMemorySpanExporter> = LazyLock::new(InMemorySpanExporter::default);

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(EXPORTER.clone())
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("test"))
            .with_location(false); // it would be this crate's, and the spans have their tasks'
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

fn add_all(tasks: &BackgroundTasks, prefix: &str) {
    let name = |end: &str| format!("{prefix}-{end}");
    tasks.add_task(Task::new(async {}).named(name("completed")));
    let failing = async { Err::<(), _>("no card") };
    tasks.add_task(Task::new(failing).named(name("failed")));
    tasks.add_task(Task::new(async { panic!("on purpose") }).named(name("panicked")));
    let slow = Task::new(pending::<()>()).timeout(Duration::from_millis(1));
    tasks.add_task(slow.named(name("timed_out")));
    tasks.add_task(Task::new(async {}).run_if(|_| false).named(name("skipped")));
    tasks.add_task(Task::blocking(|| ()).named(name("blocking-completed")));
    let failing = || Err::<(), _>("no card");
    tasks.add_task(Task::blocking(failing).named(name("blocking-failed")));
    tasks.add_task(Task::new(pending::<()>()).named(name("aborted")));
}

/// Runs requests whose tasks end in all ways, and returns the spans whose names have the prefix.
async fn spans_of(prefix: &'static str, builder: RunnerBuilder, requests: usize) -> Spans {
    install();
    let runner = builder
        .route(|request| Some(request.extensions.get::<MatchedPath>()?.as_str()))
        .build();
    let handler = async move |tasks: BackgroundTasks| add_all(&tasks, prefix);
    let request_span = move |request: &Request<Body>| {
        info_span!(
            "request",
            otel.name = format!("{prefix}-request"),
            otel.kind = "server",
            url.path = request.uri().path()
        )
    };
    let app = Router::new()
        .route("/orders/{id}", post(handler))
        .layer(runner.layer())
        .layer(TraceLayer::new_for_http().make_span_with(request_span));
    for number in 0..requests {
        let request = Request::post(format!("/orders/{number}")).body(Body::empty());
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        axum::body::to_bytes(response.into_body(), 1_000)
            .await
            .unwrap();
    }
    let hangs = |runner: &Runner| {
        let tasks = runner.tasks();
        let mut aborted = tasks
            .iter()
            .filter(|task| task.name().ends_with("-aborted"));
        aborted
            .find(|task| task.running_for().is_some())
            .map(TaskInfo::id)
    };
    for _ in 0..requests {
        let id = loop {
            match hangs(&runner) {
                Some(id) => break id,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        assert!(runner.cancel(id));
    }
    runner.idle().await;
    let stats = runner.stats();
    let total = requests as u64;
    assert_eq!(
        (stats.completed, stats.failed, stats.aborted),
        (2 * total, 2 * total, total)
    );
    assert_eq!(
        (stats.panicked, stats.timed_out, stats.skipped),
        (total, total, total)
    );
    Spans::of(prefix)
}

struct Spans(HashMap<String, Vec<SpanData>>);

impl Spans {
    fn of(prefix: &str) -> Self {
        let mut spans: HashMap<_, Vec<_>> = HashMap::new();
        for span in EXPORTER.get_finished_spans().unwrap() {
            if let Some(name) = span.name.strip_prefix(prefix) {
                let name = name.trim_start_matches('-').to_owned();
                spans.entry(name).or_default().push(span);
            }
        }
        Self(spans)
    }

    fn requests(&self) -> HashMap<SpanId, &SpanData> {
        let requests = self.0["request"].iter();
        let by_id = |span: &'_ SpanData| span.span_context.span_id();
        requests.map(|span| (by_id(span), span)).collect()
    }

    fn tasks(&self) -> impl Iterator<Item = (&str, &SpanData)> {
        let tasks = self.0.iter().filter(|(name, _)| *name != "request");
        tasks.flat_map(|(name, spans)| spans.iter().map(|span| (&**name, span)))
    }
}

fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    let mut found = span
        .attributes
        .iter()
        .filter(|pair| pair.key.as_str() == name);
    let value = found.next().map(|pair| &pair.value);
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

fn text(span: &SpanData, name: &str) -> Option<String> {
    attribute(span, name).map(|value| value.as_str().into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_has_its_status_and_its_type() {
    let spans = spans_of("status", Runner::builder(), 20).await;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (name, span) in spans.tasks() {
        let end = name.trim_start_matches("blocking-");
        assert!(ENDS.contains(&end), "{name}");
        *counts.entry(end).or_default() += 1;
        let is_error = !matches!(end, "completed" | "skipped");
        match (&span.status, is_error) {
            (Status::Error { .. }, true) | (Status::Unset, false) => {}
            (status, _) => panic!("{name}: {status:?}"),
        }
        let error_type = is_error.then(|| end.to_owned());
        assert_eq!(text(span, "error.type"), error_type, "{name}");
        assert_eq!(span.span_kind, SpanKind::Internal);
    }
    println!("{counts:?}");
    let expected = ["panicked", "timed_out", "skipped", "aborted"].map(|end| (end, 20));
    let expected = [("completed", 40), ("failed", 40)]
        .into_iter()
        .chain(expected);
    assert_eq!(counts, expected.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_tells_its_place_and_its_request() {
    let spans = spans_of("place", Runner::builder(), 1).await;
    for (_, span) in spans.tasks() {
        let file = text(span, "code.file.path").unwrap();
        assert!(file.ends_with("tests/telemetry.rs"), "{file}");
        let Some(&Value::I64(line)) = attribute(span, "code.line.number") else {
            panic!("{span:?}")
        };
        assert!(line > 50);
        assert_eq!(text(span, "http.request.method").as_deref(), Some("POST"));
        assert_eq!(text(span, "http.route").as_deref(), Some("/orders/{id}"));
        assert_eq!(text(span, "url.path").as_deref(), Some("/orders/0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_task_has_a_trace_of_its_own() {
    let spans = spans_of("linked", Runner::builder(), 5).await;
    let requests = spans.requests();
    for (name, span) in spans.tasks() {
        assert_eq!(span.parent_span_id, SpanId::INVALID, "{name}");
        let [link] = &span.links.links[..] else {
            panic!("{name}: {:?}", span.links)
        };
        assert!(
            requests.contains_key(&link.span_context.span_id()),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_in_its_requests_trace() {
    let builder = Runner::builder().span_relation(SpanRelation::Child);
    let spans = spans_of("child", builder, 5).await;
    let requests = spans.requests();
    for (name, span) in spans.tasks() {
        let request = requests[&span.parent_span_id];
        let (own, its) = (&span.span_context, &request.span_context);
        assert_eq!(own.trace_id(), its.trace_id(), "{name}");
    }
}

/// A task runs and another waits for it, so that the response is long over when either ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_requests_span_ends_with_its_response() {
    install();
    let runner = Runner::builder().max_running(1).build();
    let handler = async |tasks: BackgroundTasks| {
        let work = || thread::sleep(Duration::from_millis(300));
        tasks.add_task(Task::blocking(work).named("ends-late-task"));
        tasks.add_task(Task::new(async {}).named("ends-late-waiting"));
    };
    let request_span = |_: &Request<Body>| info_span!("request", otel.name = "ends-late-request");
    let app = Router::new()
        .route("/", post(handler))
        .layer(runner.layer())
        .layer(TraceLayer::new_for_http().make_span_with(request_span));
    let request = Request::builder().method(Method::POST).body(Body::empty());
    let response = app.oneshot(request.unwrap()).await.unwrap();
    axum::body::to_bytes(response.into_body(), 1_000)
        .await
        .unwrap();
    runner.idle().await;
    let spans = Spans::of("ends-late");
    let (request, task) = (&spans.0["request"][0], &spans.0["task"][0]);
    let took = request.end_time.duration_since(request.start_time).unwrap();
    let after = task.end_time.duration_since(request.end_time).unwrap();
    assert!(
        took < after,
        "the request took {took:?}, the task ended {after:?} later"
    );
}
