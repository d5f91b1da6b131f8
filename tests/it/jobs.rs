//! Adding jobs: to the request's queue, and to a store.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};
use tower::ServiceExt;
use tower_background_tasks::{
    AddJobError, AddJobErrorKind, BackgroundTasks, Job, JobContext, JobStore, Jobs, ResponseEnd,
    Runner, RunnerBuilder, TaskEnd, TaskResult,
};

use crate::{
    job_support::{Impostor, Mood, Note, Store, Vicious, add, note, notes},
    support::{Log, full, read_all, soon},
};

/// Sends its context.
#[derive(Serialize, Deserialize)]
struct Probe;

impl Job for Probe {
    const NAME: &'static str = "probe";
    type State = mpsc::UnboundedSender<JobContext>;

    async fn run(self, contexts: Self::State, cx: JobContext) -> TaskResult {
        contexts.send(cx)?;
        Ok(())
    }
}

fn with_notes(builder: RunnerBuilder, log: &Log) -> RunnerBuilder {
    builder.jobs(notes(log))
}

#[tokio::test]
async fn without_a_store_a_job_is_a_named_task() {
    let log = Log::default();
    let runner = with_notes(Runner::builder(), &log).build();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    tasks.add_task(log.task("before"));
    tasks.add_job(note("job")).await.unwrap();
    tasks.add_task(log.task("after"));
    assert_eq!(tasks.names()[1], "note");
    let row = &runner.tasks()[1];
    assert_eq!((row.name(), row.location().file()), ("note", file!()));
    assert!(log.lines().is_empty(), "not before the response has ended");
    read_all(response).await;
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["before", "job", "after"]);
    assert_eq!(runner.stats().completed, 3);
}

/// Panics when it is dropped, once it is `true`.
#[derive(Clone)]
struct Trap(Arc<AtomicBool>);

impl Drop for Trap {
    fn drop(&mut self) {
        assert!(!self.0.load(Relaxed), "on purpose: a state's destructor");
    }
}

#[derive(Serialize, Deserialize)]
struct Trapped<const N: usize>;

impl<const N: usize> Job for Trapped<N> {
    const NAME: &'static str = ["trapped-0", "trapped-1"][N];
    type State = Trap;

    async fn run(self, _: Trap, _: JobContext) -> TaskResult {
        Ok(())
    }
}

#[test]
fn last_of_a_runner_drops_its_jobs_states_without_panic() {
    let is_set = Arc::new(AtomicBool::new(false));
    let jobs = Jobs::new(Trap(Arc::clone(&is_set)))
        .register::<Trapped<0>>()
        .register::<Trapped<1>>();
    let runner = Runner::builder().jobs(jobs).build();
    is_set.store(true, Relaxed);
    drop(runner);
    assert_eq!(Arc::strong_count(&is_set), 1, "both are gone");
}

#[tokio::test]
async fn failing_or_panicking_job_ends_so_and_its_siblings_run() {
    let log = Log::default();
    let (ends, mut ended) = mpsc::unbounded_channel();
    let runner = with_notes(Runner::builder(), &log)
        .on_task_end(move |report| ends.send(report.end().to_string()).unwrap())
        .build();
    for text in ["fail", "panic", "fine"] {
        runner.add_job(note(text)).await.unwrap();
    }
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(soon(ended.recv()).await.unwrap());
    }
    lines.sort();
    let expected = [
        "completed",
        "failed: on purpose",
        "panicked: on purpose: a job",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_job_knows_its_request_its_response_and_its_number() {
    let (sender, mut contexts) = mpsc::unbounded_channel();
    let jobs = Jobs::new(sender).register::<Probe>();
    let runner = Runner::builder().jobs(jobs).build();
    let handler = async |tasks: BackgroundTasks| tasks.add_job(Probe).await.unwrap().to_string();
    let app = Router::new()
        .route("/orders/{id}", post(handler))
        .layer(runner.layer());
    let request = Request::post("/orders/7?token=secret").body(Body::empty());
    let response = app.oneshot(request.unwrap()).await.unwrap();
    let answered = read_all(response).await;
    let cx = soon(contexts.recv()).await.unwrap();
    assert_eq!(cx.id().to_string().as_bytes(), answered);
    assert_eq!((cx.name(), cx.attempt()), ("probe", 1));
    let request = cx.request().unwrap();
    assert_eq!((&*request.method, &*request.path), ("POST", "/orders/7"));
    let response = cx.task().unwrap().response().unwrap();
    assert_eq!(response.end, ResponseEnd::Completed);
}

#[tokio::test]
async fn two_jobs_have_two_numbers() {
    let log = Log::default();
    let runner = with_notes(Runner::builder(), &log).build();
    let first = runner.add_job(note("same")).await.unwrap();
    assert_ne!(first, runner.add_job(note("same")).await.unwrap());
}

#[tokio::test]
async fn nothing_is_added_before_the_first_poll() {
    let log = Log::default();
    let runner = with_notes(Runner::builder(), &log).build();
    drop(runner.add_job(note("never")));
    assert_eq!(runner.stats().added, 0);
}

#[tokio::test]
async fn a_job_that_is_not_registered_comes_back() {
    let log = Log::default();
    let store = Store::new(Mood::Takes);
    let empty = || Jobs::new(());
    for runner in [
        Runner::new(),
        Runner::builder().jobs(empty()).build(),
        Runner::builder()
            .jobs(empty())
            .job_store(store.clone())
            .build(),
    ] {
        let error = runner.add_job(note("mine")).await.unwrap_err();
        assert!(matches!(error.kind(), AddJobErrorKind::NotRegistered));
        assert!(error.to_string().contains("`note` is not registered"));
        assert_eq!(error.into_job::<Note>().unwrap(), note("mine"));
        assert_eq!(runner.stats().added, 0);
    }
    assert!(store.texts().is_empty());
    // Another type under the name of one that is registered is not that one.
    let runner = with_notes(Runner::builder(), &log).build();
    let error = runner.add_job(Impostor).await.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::NotRegistered));
    let error = error.into_job::<Note>().unwrap_err();
    assert!(
        error.into_job::<Impostor>().is_ok(),
        "only under its own type"
    );
}

#[test]
#[should_panic(expected = "two jobs are registered as `note`")]
fn two_jobs_of_one_name_are_refused_at_the_start() {
    drop(notes(&Log::default()).register::<Impostor>());
}

#[tokio::test]
async fn a_job_that_the_runner_refuses_comes_back() {
    let log = Log::default();
    let runner = with_notes(Runner::builder(), &log)
        .max_awaiting_response(1)
        .build();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    add(&tasks, "first").await.unwrap();
    let error = tasks.add_job(note("second")).await.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::Full));
    assert_eq!(error.into_job::<Note>().unwrap(), note("second"));
    drop(response);
    assert!(runner.shutdown(Duration::from_secs(9)).await.is_clean());
    let error = runner.add_job(note("third")).await.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::Closed));
    assert_eq!(error.into_job::<Note>().unwrap(), note("third"));
    assert_eq!((runner.stats().added, log.lines().len()), (1, 1));
}

#[tokio::test]
async fn with_a_store_the_job_is_stored_and_no_task() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = with_notes(Runner::builder(), &log)
        .job_store(store.clone())
        .build();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    let id = tasks.add_job(note("job")).await.unwrap();
    assert_eq!(
        store.texts(),
        ["job"],
        "stored before the response has ended"
    );
    assert_eq!((tasks.len(), runner.stats().added), (0, 0));
    let stored = store.jobs.lock().unwrap().pop().unwrap();
    assert_eq!((stored.id(), stored.name()), (id, "note"));
    drop(response);
    soon(runner.idle()).await;
    assert!(log.lines().is_empty());
    notes(&log).run(stored).await.unwrap();
    assert_eq!(log.lines(), ["job"]);
}

#[tokio::test]
async fn without_registered_jobs_a_store_takes_each() {
    let store = Store::new(Mood::Takes);
    let runner = Runner::builder().job_store(store.clone()).build();
    runner.add_job(note("any")).await.unwrap();
    assert_eq!(store.texts(), ["any"]);
}

#[tokio::test(start_paused = true)]
async fn failing_panicking_or_slow_store_returns_the_job_in_time() {
    let (log, store) = (Log::default(), Store::new(Mood::Fails));
    let runner = with_notes(Runner::builder(), &log)
        .job_store(store.clone())
        .job_store_timeout(Duration::from_secs(2))
        .build();
    let error = runner.add_job(note("down")).await.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::StoreFailed(_)));
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the store is down");
    assert_eq!(error.into_job::<Note>().unwrap(), note("down"));

    store.set(Mood::Panics);
    let error = runner.add_job(note("panics")).await.unwrap_err();
    match error.kind() {
        AddJobErrorKind::StoreFailed(error) => assert!(error.to_string().contains("on purpose")),
        other => panic!("{other:?}"),
    }

    store.set(Mood::NeverAnswers);
    let begun = Instant::now();
    let error = runner.add_job(note("slow")).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert!(matches!(error.kind(), AddJobErrorKind::StoreTimedOut(limit) if limit.as_secs() == 2));
    assert!(error.to_string().contains("within 2s"));
    assert_eq!(error.into_job::<Note>().unwrap(), note("slow"));
    assert!(store.texts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn push_that_panics_when_dropped_is_stored_or_late_anyway() {
    let runner = Runner::builder().job_store(Vicious::Push).build();
    runner.add_job(note("stored")).await.unwrap();
    let runner = Runner::builder().job_store(Vicious::PushForEver).build();
    let error = runner.add_job(note("late")).await.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::StoreTimedOut(_)));
}

#[test]
#[should_panic(expected = "`job_store_timeout` must not be zero")]
fn no_time_for_the_store_is_refused() {
    drop(Runner::builder().job_store_timeout(Duration::ZERO));
}

#[derive(Serialize, Deserialize)]
struct NotJson {
    by_pair: HashMap<(u8, u8), u8>,
}

impl Job for NotJson {
    const NAME: &'static str = "not-json";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        Ok(())
    }
}

fn not_json() -> NotJson {
    let by_pair = HashMap::from([((1, 2), 3)]);
    NotJson { by_pair }
}

#[tokio::test]
async fn only_a_stored_job_needs_to_be_serialisable() {
    let jobs = || Jobs::new(()).register::<NotJson>();
    let runner = Runner::builder().jobs(jobs()).build();
    runner.add_job(not_json()).await.unwrap();
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 1, "nothing was serialised");

    let store = Store::new(Mood::Takes);
    for builder in [
        Runner::builder().job_store(store.clone()),
        Runner::builder().spill_store(store),
    ] {
        let runner = builder.jobs(jobs()).build();
        let error = runner.add_job(not_json()).await.unwrap_err();
        assert!(matches!(error.kind(), AddJobErrorKind::NotSerialised(_)));
        assert!(error.is_permanent());
        assert_eq!(error.into_job::<NotJson>().unwrap().by_pair[&(1, 2)], 3);
    }
}

#[tokio::test]
async fn error_response_is_503_or_a_plain_500() {
    let store = Store::new(Mood::Fails);
    let runner = Runner::builder().job_store(store).build();
    let error = runner.add_job(note("down")).await.unwrap_err();
    let status = error.into_response().status();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let error = Runner::new().add_job(note("none")).await.unwrap_err();
    let response = error.into_response();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let text = read_all(response).await;
    assert_eq!(
        text, "internal server error",
        "the remedy is for the operator"
    );
}

/// The same for both runners.
async fn handler(
    State(text): State<&'static str>,
    tasks: BackgroundTasks,
) -> Result<StatusCode, AddJobError> {
    tasks.add_job(note(text)).await?;
    Ok(StatusCode::ACCEPTED)
}

#[tokio::test]
async fn one_handler_serves_one_process_and_many() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let here = with_notes(Runner::builder(), &log).build();
    let there = with_notes(Runner::builder(), &log)
        .job_store(store.clone())
        .build();
    for runner in [&here, &there] {
        let app = Router::new()
            .route("/", get(handler))
            .with_state("job")
            .layer(runner.layer());
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        read_all(response).await;
        soon(runner.idle()).await;
    }
    assert_eq!(
        (log.lines(), store.texts()),
        (vec!["job".into()], vec!["job".into()])
    );
}

#[tokio::test]
async fn a_handler_is_tested_with_a_queue_that_has_jobs() {
    let log = Log::default();
    let tasks = BackgroundTasks::with_jobs(notes(&log));
    add(&tasks, "fine").await.unwrap();
    add(&tasks, "fail").await.unwrap();
    assert_eq!(tasks.names(), ["note", "note"]);
    let ends = tasks.run().await;
    assert!(matches!(ends[..], [TaskEnd::Completed, TaskEnd::Failed(_)]));
    let error = add(&BackgroundTasks::new(), "none").await.unwrap_err();
    assert!(error.to_string().contains("with_jobs"));
}

#[tokio::test]
async fn queue_with_jobs_runs_them_with_its_response() {
    let log = Log::default();
    let (runner, tasks) = (Runner::new(), BackgroundTasks::with_jobs(notes(&log)));
    add(&tasks, "attached").await.unwrap();
    drop(runner.attach(full("hello"), tasks.clone()));
    soon(runner.idle()).await;
    add(&tasks, "late").await.unwrap();
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["attached", "late"]);
}

#[tokio::test]
async fn a_hold_of_a_queue_with_jobs_takes_jobs() {
    let log = Log::default();
    let (runner, tasks) = (Runner::new(), BackgroundTasks::with_jobs(notes(&log)));
    let held = tasks.hold();
    add(&held, "held").await.unwrap();
    drop(runner.attach(full("hello"), tasks));
    held.release();
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["held"]);
}

#[tokio::test(start_paused = true)]
async fn job_of_a_queue_with_jobs_ignores_the_runners_store() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    for builder in [
        Runner::builder().job_store(store.clone()),
        Runner::builder().spill_store(store.clone()),
    ] {
        let (runner, tasks) = (builder.build(), BackgroundTasks::with_jobs(notes(&log)));
        add(&tasks, "early").await.unwrap();
        let response = runner.attach(full("hello"), tasks.clone());
        add(&tasks, "late").await.unwrap();
        add(&tasks, "stuck").await.unwrap();
        drop(response);
        let report = runner.shutdown(Duration::from_secs(1)).await;
        assert_eq!((report.unfinished().len(), store.texts().len()), (1, 0));
    }
    assert_eq!(log.lines(), ["early", "late", "stuck"].repeat(2));
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn trace_of_stored(runner: &Runner, store: &Store) -> HashMap<String, String> {
    let app = Router::new()
        .route("/", get(handler))
        .with_state("job")
        .layer(runner.layer());
    let request = Request::get("/")
        .header("traceparent", PARENT)
        .header("tracestate", "a=1")
        .header("baggage", "not=passed-on");
    let response = app.oneshot(request.body(Body::empty()).unwrap());
    read_all(response.await.unwrap()).await;
    let stored = store.jobs.lock().unwrap().pop().unwrap();
    stored.trace().clone()
}

#[tokio::test]
async fn trace_travels_with_a_stored_job_unless_the_program_overrides() {
    let store = Store::new(Mood::Takes);
    let runner = Runner::builder().job_store(store.clone()).build();
    let trace = trace_of_stored(&runner, &store).await;
    let expected = [("traceparent", PARENT), ("tracestate", "a=1")];
    assert_eq!(
        trace,
        expected
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    );

    let own = |trace: &mut HashMap<String, String>| {
        drop(trace.insert("traceparent".into(), "own".into()))
    };
    let runner = Runner::builder()
        .job_store(store.clone())
        .job_trace(own)
        .build();
    let trace = trace_of_stored(&runner, &store).await;
    assert_eq!(trace, HashMap::from([("traceparent".into(), "own".into())]));

    let stateless = |trace: &mut HashMap<String, String>| {
        trace.insert("traceparent".into(), "own".into());
        trace.insert("tracestate".into(), String::new()); // as OpenTelemetry's propagator does
    };
    let runner = Runner::builder()
        .job_store(store.clone())
        .job_trace(stateless)
        .build();
    let trace = trace_of_stored(&runner, &store).await;
    assert_eq!(trace, HashMap::from([("traceparent".into(), "own".into())]));

    let panics = |_: &mut HashMap<String, String>| panic!("on purpose: a tracer");
    let runner = Runner::builder()
        .job_store(store.clone())
        .job_trace(panics)
        .build();
    assert_eq!(
        trace_of_stored(&runner, &store).await["traceparent"],
        PARENT
    );
}

#[tokio::test]
async fn trace_too_long_or_empty_or_not_text_is_not_stored() {
    let store = Store::new(Mood::Takes);
    let runner = Runner::builder().job_store(store.clone()).build();
    let app = Router::new()
        .route("/", get(handler))
        .with_state("job")
        .layer(runner.layer());
    let longest = ("p".repeat(256), "s".repeat(512));
    let too_long = ("p".repeat(257), "s".repeat(513));
    for (parent, state, kept) in [
        (longest.0.as_bytes(), longest.1.as_bytes(), 2),
        (too_long.0.as_bytes(), too_long.1.as_bytes(), 0),
        (too_long.0.as_bytes(), b"a=1", 0), // a state says nothing without its parent
        (longest.0.as_bytes(), too_long.1.as_bytes(), 1),
        (b"\xff", b"a=1", 0),
        (b"", b"a=1", 0),
        (longest.0.as_bytes(), b"", 1),
    ] {
        let request = Request::get("/")
            .header("traceparent", parent)
            .header("tracestate", state);
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap());
        read_all(response.await.unwrap()).await;
        let stored = store.jobs.lock().unwrap().pop().unwrap();
        assert_eq!(stored.trace().len(), kept);
    }
}

#[tokio::test]
async fn a_store_may_be_a_box_whose_type_is_forgotten() {
    let store = Store::new(Mood::Takes);
    let boxed: Box<dyn JobStore> = Box::new(store.clone());
    let runner = Runner::builder().job_store(boxed).build();
    runner.add_job(note("boxed")).await.unwrap();
    assert_eq!(store.texts(), ["boxed"]);
}

#[tokio::test]
async fn add_dropped_while_the_store_is_asked_adds_nothing_here() {
    let store = Store::new(Mood::NeverAnswers);
    let runner = Runner::builder().job_store(Arc::clone(&store)).build();
    let adding = tokio::spawn(runner.add_job(note("late")));
    soon(store.asked()).await;
    adding.abort();
    assert!(adding.await.unwrap_err().is_cancelled());
    assert_eq!(runner.stats().added, 0);
}
