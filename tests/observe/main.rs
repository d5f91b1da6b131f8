//! What a subscriber of `tracing` sees. A binary of its own, as the subscriber is the whole process's: threads of the blocking
//! pool are to be seen as well. Tests tell their tasks by name.

mod lines;
mod panics;
#[path = "../it/support/panics_when_shown.rs"]
mod panics_when_shown;
#[path = "../it/support/times.rs"]
mod shared_times;
#[path = "../it/support/soon.rs"]
mod soon;
mod times;

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{LazyLock, Mutex, Once, mpsc},
    thread,
    time::Duration,
};

use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer as _, Service};
use tower_background_tasks::{
    BackgroundTasks, OnFailure, ResponseBody, ResponseOutcome, Runner, RunnerBuilder, SpanRelation,
    Task, TaskState, install_panic_hook,
};
use tracing::{
    Event, Instrument, Level, Subscriber, field::Field, field::Visit, info_span, span,
    subscriber::set_global_default,
};
use tracing_subscriber::{
    Registry,
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

use self::panics_when_shown::PanicsWhenShown;

type Fields = HashMap<String, String>;

#[derive(Clone, Debug)]
struct SeenSpan {
    name: &'static str,
    fields: Fields,
    parent: Option<u64>,
    follows: Vec<u64>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct SeenEvent {
    level: Level,
    fields: Fields,
    /// The span it happened in.
    span: Option<u64>,
}

#[derive(Default)]
struct Seen {
    spans: HashMap<u64, SeenSpan>,
    events: Vec<SeenEvent>,
}

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

struct Collect(Fields);

impl Visit for Collect {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

struct Capture;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, cx: Context<'_, S>) {
        let mut name = Collect(Fields::new());
        attributes.record(&mut name);
        if name
            .0
            .get("otel.name")
            .is_some_and(|name| name == "bad-span")
        {
            panic!("on purpose: a subscriber");
        }
        cancel_as_it_begins(&name.0);
        let mut collect = Collect(Fields::new());
        attributes.record(&mut collect);
        let span = SeenSpan {
            name: attributes.metadata().name(),
            fields: collect.0,
            parent: cx
                .span(id)
                .and_then(|span| span.parent())
                .map(|span| span.id().into_u64()),
            follows: Vec::new(),
            closed: false,
        };
        SEEN.lock().unwrap().spans.insert(id.into_u64(), span);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        let mut collect = Collect(Fields::new());
        values.record(&mut collect);
        let mut seen = SEEN.lock().unwrap();
        let span = seen.spans.get_mut(&id.into_u64()).unwrap();
        span.fields.extend(collect.0);
    }

    fn on_follows_from(&self, span: &span::Id, follows: &span::Id, _: Context<'_, S>) {
        let mut seen = SEEN.lock().unwrap();
        seen.spans
            .get_mut(&span.into_u64())
            .unwrap()
            .follows
            .push(follows.into_u64());
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut collect = Collect(Fields::new());
        event.record(&mut collect);
        let event = SeenEvent {
            level: *event.metadata().level(),
            fields: collect.0,
            span: cx.event_span(event).map(|span| span.id().into_u64()),
        };
        SEEN.lock().unwrap().events.push(event);
    }

    fn on_close(&self, id: span::Id, _: Context<'_, S>) {
        if let Some(span) = SEEN.lock().unwrap().spans.get_mut(&id.into_u64()) {
            span.closed = true;
        }
    }
}

/// The runner of a task that is cancelled while its span is opened.
static CANCELS: Mutex<Option<Runner>> = Mutex::new(None);

fn cancel_as_it_begins(fields: &Fields) {
    let name = fields.get("otel.name");
    if name.is_none_or(|name| name != "cancelled-as-it-begins") {
        return;
    }
    let runner = CANCELS.lock().unwrap().take().unwrap();
    let id = fields["task.id"].parse::<u64>().unwrap();
    assert!(runner.cancel(id.into()));
}

fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        install_panic_hook();
        // Ids are not used again in this process, so that a closed span is not taken for another.
        set_global_default(Registry::default().with(Capture)).unwrap();
    });
}

/// The events that the runner made of the task called `name`.
fn events_of(name: &str) -> Vec<SeenEvent> {
    let seen = SEEN.lock().unwrap();
    let of_it = |event: &&SeenEvent| {
        event
            .fields
            .get("task.name")
            .is_some_and(|task| task == name)
    };
    seen.events.iter().filter(of_it).cloned().collect()
}

/// The one event in which the task called `name` ended.
fn end_of(name: &str) -> SeenEvent {
    let events = events_of(name);
    assert_eq!(events.len(), 1, "{events:?}");
    events[0].clone()
}

fn span_of(name: &str) -> (u64, SeenSpan) {
    let seen = SEEN.lock().unwrap();
    let is_it = |span: &SeenSpan| {
        span.name == "background_task"
            && span
                .fields
                .get("otel.name")
                .is_some_and(|task| task == name)
    };
    let mut spans = seen.spans.iter().filter(|(_, span)| is_it(span));
    let (id, span) = spans.next().unwrap_or_else(|| panic!("no span for {name}"));
    assert!(spans.next().is_none(), "two spans for {name}");
    (*id, span.clone())
}

fn attach(runner: &Runner, tasks: BackgroundTasks) -> Response<ResponseBody<Full<&'static [u8]>>> {
    runner.attach(Response::new(Full::new(&b"hello"[..])), tasks)
}

fn respond(runner: &Runner, tasks: BackgroundTasks) {
    drop(attach(runner, tasks));
}

async fn run(builder: RunnerBuilder, tasks: impl IntoIterator<Item = Task>) -> Runner {
    capture();
    let runner = builder.build();
    let queue = BackgroundTasks::new();
    for task in tasks {
        queue.add_task(task);
    }
    respond(&runner, queue);
    runner.idle().await;
    runner
}

#[tokio::test]
async fn each_end_is_one_event_at_a_fitting_level() {
    run(
        Runner::builder(),
        [
            Task::new(async {}).named("ends-well"),
            Task::new(async { Err::<(), _>("no mail server") }).named("fails"),
            Task::blocking(|| panic!("on purpose")).named("panics"),
            Task::new(std::future::pending::<()>())
                .timeout(Duration::from_millis(1))
                .named("times-out"),
            Task::new(async {}).run_if(|_| false).named("is-skipped"),
        ],
    )
    .await;
    let level = |name| end_of(name).level;
    assert_eq!(level("ends-well"), Level::DEBUG);
    assert_eq!(level("fails"), Level::WARN);
    assert_eq!(level("panics"), Level::ERROR);
    assert_eq!(level("times-out"), Level::WARN);
    assert_eq!(level("is-skipped"), Level::DEBUG);
    let fields = end_of("fails").fields;
    assert_eq!(fields["message"], "background task failed");
    assert_eq!(
        (&*fields["task.end"], &*fields["error"]),
        ("failed", "no mail server")
    );
    assert_eq!(end_of("panics").fields["error"], "on purpose");
    assert!(!end_of("times-out").fields.contains_key("error"));
    assert_eq!(fields["response.end"], "Aborted");
    assert_eq!(fields["http.response.status_code"], "200");
    for time in ["task.waiting_seconds", "task.running_seconds"] {
        assert!(fields[time].parse::<f64>().is_ok(), "{time}");
    }
    assert_eq!(
        end_of("times-out").fields["message"],
        "background task timed out"
    );
    assert!(end_of("panics").fields["panic.location"].contains("observe/main.rs:"));
    let (_, span) = span_of("panics");
    assert_eq!(span.fields["task.kind"], "blocking");
    assert!(span.fields["code.file.path"].ends_with("observe/main.rs"));
    assert!(span.fields["code.line.number"].parse::<u32>().unwrap() > 100);
    let twice = |field: &&String| fields.contains_key(*field);
    let (_, span) = span_of("fails");
    assert_eq!(span.fields.keys().find(twice), None, "on one line");
}

#[tokio::test]
async fn a_resumed_panic_has_no_others_place() {
    let caught = Task::new(async {
        let caught = std::panic::catch_unwind(|| panic!("on purpose: caught by the task"));
        assert!(caught.is_err());
    });
    let resumed = Task::new(async {
        std::panic::resume_unwind(Box::new("on purpose: resumed"));
    });
    let tasks = [caught.named("catches"), resumed.named("resumes")];
    run(Runner::builder(), tasks).await;
    let fields = end_of("resumes").fields;
    assert_eq!(fields["error"], "on purpose: resumed");
    assert!(!fields.contains_key("panic.location"), "{fields:?}");
}

/// A request to `/orders?secret=1` through the layer, whose handler adds `task`; the client leaves before its answer.
async fn request_without_a_response(task: Task) {
    capture();
    let runner = Runner::new();
    let task = Mutex::new(Some(task));
    let mut service = runner
        .layer()
        .layer(tower::service_fn(|request: Request<()>| {
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            tasks.add_task(task.lock().unwrap().take().unwrap());
            std::future::pending::<Result<Response<String>, std::convert::Infallible>>()
        }));
    let request = Request::post("/orders?secret=1").body(()).unwrap();
    drop(service.call(request));
    runner.idle().await;
}

#[tokio::test]
async fn a_skip_is_for_debugging() {
    request_without_a_response(Task::new(async {}).named("wants-a-response")).await;
    assert_eq!(end_of("wants-a-response").level, Level::DEBUG);
    let chosen = Task::new(async {}).run_if(ResponseOutcome::is_success);
    request_without_a_response(chosen.named("chose-not-to")).await;
    assert_eq!(end_of("chose-not-to").level, Level::DEBUG);
}

#[tokio::test]
async fn the_span_says_for_which_request() {
    let task = Task::new(async {}).named("on-whose-behalf");
    request_without_a_response(task.run_if(|_| true)).await;
    let fields = span_of("on-whose-behalf").1.fields;
    let request = (&*fields["http.request.method"], &*fields["url.path"]);
    assert_eq!(request, ("POST", "/orders"));
}

#[tokio::test]
async fn the_end_says_it_where_there_is_no_span() {
    capture();
    let runner = Runner::new();
    let mut service = runner
        .layer()
        .layer(tower::service_fn(async |request: Request<()>| {
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            tasks.add_task(Task::new(async {}).named("never-began"));
            Ok::<_, std::convert::Infallible>(Response::new(String::from("hello")))
        }));
    let response = service.call(Request::post("/orders").body(()).unwrap());
    let response = response.await.unwrap();
    assert!(!runner.shutdown(Duration::ZERO).await.is_clean());
    drop(response);
    let SeenEvent { fields, span, .. } = end_of("never-began");
    let request = (&*fields["http.request.method"], &*fields["url.path"]);
    assert_eq!((request, span), (("POST", "/orders"), None));
    assert!(fields["code.file.path"].ends_with("observe/main.rs"));
    assert_eq!((&*fields["task.id"], &*fields["task.kind"]), ("1", "async"));
}

#[tokio::test]
async fn the_span_of_an_error_has_its_status_and_type() {
    let runner = run(
        Runner::builder(),
        [
            Task::new(async {}).named("status-unset"),
            Task::new(async { Err::<(), _>("no") }).named("status-failed"),
            Task::blocking(|| panic!("on purpose")).named("status-panicked"),
            Task::new(std::future::pending::<()>())
                .timeout(Duration::from_millis(1))
                .named("status-timed-out"),
        ],
    )
    .await;
    runner.add_task(Task::new(std::future::pending::<()>()).named("status-aborted"));
    until_running(&runner).await;
    assert!(!runner.shutdown(Duration::ZERO).await.is_clean());
    let status = |name| {
        let fields = span_of(name).1.fields;
        let of = |field: &str| fields.get(field).cloned();
        (of("otel.status_code"), of("error.type"))
    };
    assert_eq!(status("status-unset"), (None, None));
    for (name, error) in [
        ("status-failed", "failed"),
        ("status-panicked", "panicked"),
        ("status-timed-out", "timed_out"),
        ("status-aborted", "aborted"),
    ] {
        assert_eq!(
            status(name),
            (Some("ERROR".into()), Some(error.into())),
            "{name}"
        );
    }
}

async fn until_running(runner: &Runner) {
    while runner.stats().running == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_span_is_closed_when_a_shutdown_returns() {
    for round in 0..50 {
        let name = format!("closed-by-shutdown-{round}");
        let runner = run(Runner::builder(), []).await;
        let task = Task::new(tokio::task::yield_now()).named(name.clone());
        runner.add_task(task);
        assert!(runner.shutdown(Duration::from_secs(20)).await.is_clean());
        assert!(span_of(&name).1.closed, "{name}");
    }
}

#[tokio::test]
async fn a_refusal_and_an_abandonment_warn() {
    capture();
    let runner = Runner::builder().max_pending(1).build();
    runner.add_task(Task::new(std::future::pending::<()>()).named("abandoned"));
    runner.add_task(Task::new(async {}).named("refused"));
    let report = runner.shutdown(Duration::from_millis(1)).await;
    assert_eq!(report.unfinished()[0].name(), "abandoned");
    assert_eq!(end_of("abandoned").level, Level::WARN);
    assert_eq!(end_of("refused").level, Level::WARN);
}

#[tokio::test]
async fn skip_behind_a_failure_is_debug_but_dropped_queues_warn() {
    run(
        Runner::builder().on_failure(OnFailure::Stop),
        [
            Task::new(async { Err::<(), _>("on purpose") }).named("stops-the-rest"),
            Task::new(async {}).named("the-rest"),
        ],
    )
    .await;
    assert_eq!(end_of("the-rest").level, Level::DEBUG);
    let tasks = BackgroundTasks::new();
    tasks.add_task(Task::new(async {}).named("never-taken"));
    drop(tasks);
    let seen = SEEN.lock().unwrap();
    let warned = seen.events.iter().any(|event| {
        event.level == Level::WARN
            && event
                .fields
                .get("tasks")
                .is_some_and(|tasks| tasks.contains("never-taken"))
    });
    assert!(warned);
}

/// What was seen of a task that was added in a span, and logs: its own span, the id of the span it was added in, and the span
/// that its log line was in.
async fn relation(relation: SpanRelation, name: &'static str, blocking: bool) -> (SeenSpan, u64) {
    capture();
    let runner = Runner::builder().span_relation(relation).build();
    let request = info_span!("request");
    let request_id = request.id().unwrap().into_u64();
    let log = move || tracing::info!(line = name, "from within");
    let task = if blocking {
        Task::blocking(log)
    } else {
        Task::new(async move {
            tokio::task::yield_now().await;
            log();
        })
    };
    let adding = runner.clone();
    async move { adding.add_task(task.named(name)) }
        .instrument(request)
        .await;
    runner.idle().await;
    let (id, span) = span_of(name);
    let seen = SEEN.lock().unwrap();
    let line = seen
        .events
        .iter()
        .find(|event| event.fields.get("line").is_some_and(|line| line == name));
    assert_eq!(
        line.unwrap().span,
        Some(id),
        "the task's log is in its span"
    );
    drop(seen);
    assert_eq!(end_of(name).span, Some(id), "its end is in its span");
    assert!(span.closed);
    (span, request_id)
}

#[tokio::test]
async fn span_follows_from_the_one_the_task_was_added_in() {
    for (name, blocking) in [("follows", false), ("follows-blocking", true)] {
        let (span, request) = relation(SpanRelation::FollowsFrom, name, blocking).await;
        assert_eq!((span.parent, &span.follows[..]), (None, &[request][..]));
        assert_eq!(
            span.fields["task.kind"],
            if blocking { "blocking" } else { "async" }
        );
    }
}

#[tokio::test]
async fn span_is_a_child_or_unrelated_by_its_setting() {
    for (name, blocking) in [("child", false), ("child-blocking", true)] {
        let (span, request) = relation(SpanRelation::Child, name, blocking).await;
        assert_eq!((span.parent, span.follows.len()), (Some(request), 0));
    }
    let (span, _) = relation(SpanRelation::None, "alone", false).await;
    assert_eq!((span.parent, span.follows.len()), (None, 0));
}

#[tokio::test]
async fn without_a_relation_the_requests_span_closes_at_once() {
    capture();
    for (relation, closes) in [
        (SpanRelation::None, true),
        (SpanRelation::FollowsFrom, false),
    ] {
        let runner = Runner::builder().span_relation(relation).build();
        let request = info_span!("request");
        let id = request.id().unwrap().into_u64();
        request.in_scope(|| runner.add_task(async {}));
        drop(request);
        let is_closed = SEEN.lock().unwrap().spans[&id].closed;
        assert_eq!(is_closed, closes, "before the task begins: {relation:?}");
        runner.idle().await;
    }
}

#[tokio::test]
async fn shielded_work_logs_within_its_requests_span() {
    capture();
    let runner = Runner::new();
    let request = info_span!("request");
    let id = request.id().unwrap().into_u64();
    let tasks = BackgroundTasks::new();
    let _response = runner.attach(Response::new(String::from("hello")), tasks.clone());
    let shield = request.in_scope(|| {
        tasks.shield(async {
            tokio::task::yield_now().await;
            tracing::info!(task.name = "shielded", "done");
        })
    });
    drop(request);
    soon::soon(shield).await.unwrap();
    runner.idle().await;
    let spans: Vec<_> = events_of("shielded")
        .iter()
        .map(|event| event.span)
        .collect();
    assert_eq!(spans, [Some(id)]);
    assert!(SEEN.lock().unwrap().spans[&id].closed);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn a_missing_layer_is_logged_once_for_its_path() {
    use axum::{Router, body::Body, routing::get};
    use tower::ServiceExt;

    capture();
    let app = Router::new().fallback(get(async |_: BackgroundTasks| "hello"));
    for path in ["/orders", "/orders", "/mails"] {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
    }
    let seen = SEEN.lock().unwrap();
    let errors = seen
        .events
        .iter()
        .filter(|event| event.level == Level::ERROR);
    let remedy = "is `BackgroundTasksLayer` applied";
    let told = errors.filter(|event| event.fields["message"].contains(remedy));
    let paths: Vec<_> = told.map(|event| &*event.fields["url.path"]).collect();
    assert_eq!(paths, ["/orders", "/mails"]);
}

#[test]
fn shutdown_without_a_timer_warns_and_names_the_remedy() {
    capture();
    let warnings = || {
        let seen = SEEN.lock().unwrap();
        let messages = seen
            .events
            .iter()
            .filter(|event| event.level == Level::WARN);
        let messages = messages.filter_map(|event| event.fields.get("message"));
        messages
            .filter(|text| text.contains("`enable_time`"))
            .count()
    };
    let before = warnings();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let report = runtime.block_on(async {
        let runner = Runner::new();
        runner.add_task(std::future::pending::<()>());
        runner.shutdown(Duration::from_millis(1)).await
    });
    assert_eq!(report.unfinished().len(), 1);
    assert_eq!(warnings(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn idle_warns_once_of_what_waits_and_names_the_remedy() {
    capture();
    let warnings = || {
        let seen = SEEN.lock().unwrap();
        let messages = seen
            .events
            .iter()
            .filter(|event| event.level == Level::WARN);
        let messages = messages.filter_map(|event| event.fields.get("message").cloned());
        messages
            .filter(|text| text.contains("waits-for-its-response"))
            .collect::<Vec<_>>()
    };
    let (runner, tasks) = (Runner::new(), BackgroundTasks::new());
    tasks.add_task(Task::new(async {}).named("waits-for-its-response"));
    let response = attach(&runner, tasks);
    let idle = runner.idle().await;
    assert_eq!(warnings(), [idle.to_string()]);
    drop(response);
    assert!(runner.idle().await.is_complete());
    assert_eq!(warnings().len(), 1);
}

#[tokio::test]
async fn slow_poll_is_named_and_quick_or_blocking_is_not() {
    let hold = Duration::from_millis(30);
    let builder = Runner::builder().warn_slow_poll(Duration::from_millis(20));
    run(
        builder,
        [
            Task::new(async move { thread::sleep(hold) }).named("holds-its-worker"),
            Task::new(async {}).named("is-quick"),
            Task::blocking(move || thread::sleep(hold)).named("may-block"),
        ],
    )
    .await;
    let slow = |name| {
        let events = events_of(name);
        events
            .iter()
            .filter(|event| event.fields.contains_key("task.held_seconds"))
            .count()
    };
    assert_eq!(
        (
            slow("holds-its-worker"),
            slow("is-quick"),
            slow("may-block")
        ),
        (1, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stuck_task_is_named_while_it_runs_and_at_shutdown() {
    capture();
    let runner = Runner::new();
    let (release, gate) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let stuck = move || {
        started.send(()).unwrap();
        let _ = gate.recv();
    };
    runner.add_task(Task::blocking(stuck).named("stuck"));
    tokio::task::spawn_blocking(move || has_started.recv().unwrap())
        .await
        .unwrap();
    let tasks = runner.tasks();
    assert_eq!(
        (tasks[0].name(), tasks[0].state()),
        ("stuck", TaskState::Running)
    );
    assert!(!runner.cancel(tasks[0].id()), "it cannot be stopped");
    let report = runner.shutdown(Duration::from_millis(1)).await;
    assert_eq!(report.unfinished()[0].name(), "stuck");
    drop(release);
    runner.idle().await;
    assert_eq!(end_of("stuck").level, Level::WARN);
}

#[tokio::test]
async fn a_subscriber_that_panics_harms_no_task() {
    let runner = run(
        Runner::builder(),
        [
            Task::new(async {}).named("bad-span"),
            Task::new(async {}).named("behind-a-bad-span"),
        ],
    )
    .await;
    assert_eq!(runner.stats().completed, 2);
    assert_eq!(end_of("behind-a-bad-span").level, Level::DEBUG);
}

#[tokio::test]
async fn an_error_whose_text_panics_is_logged_without_it() {
    let fails = Task::new(async { Err::<(), _>(PanicsWhenShown) }).named("cannot-be-shown");
    let runner = run(Runner::builder(), [fails]).await;
    assert_eq!(runner.stats().failed, 1);
    let end = end_of("cannot-be-shown");
    assert_eq!(end.level, Level::WARN);
    assert_eq!(end.fields["error"], "its error cannot be shown");
}

#[tokio::test]
async fn a_span_of_another_threads_subscriber_harms_no_task() {
    capture();
    for relation in [SpanRelation::Child, SpanRelation::FollowsFrom] {
        let runner = Runner::builder().span_relation(relation).build();
        let other = tracing::subscriber::set_default(Registry::default());
        info_span!("elsewhere").in_scope(|| runner.add_task(async {}));
        drop(other);
        runner.idle().await;
        assert_eq!(runner.stats().completed, 1);
    }
}

#[tokio::test]
async fn the_end_of_an_aborted_task_is_in_its_span() {
    capture();
    let runner = Runner::new();
    runner.add_task(Task::new(std::future::pending::<()>()).named("aborted-in-its-span"));
    let report = runner.shutdown(Duration::from_millis(5)).await;
    assert!(!report.is_clean());
    runner.idle().await;
    let (id, span) = span_of("aborted-in-its-span");
    assert_eq!(end_of("aborted-in-its-span").span, Some(id));
    assert!(span.closed);
}

#[tokio::test]
async fn a_task_run_by_hand_has_no_runners_number() {
    capture();
    let tasks = BackgroundTasks::new();
    for name in ["by-hand-first", "by-hand-second"] {
        tasks.add_task(Task::new(async {}).named(name));
    }
    assert_eq!(tasks.run().await.len(), 2);
    for name in ["by-hand-first", "by-hand-second"] {
        assert_eq!(span_of(name).1.fields["task.id"], "0");
    }
}

#[tokio::test]
async fn a_task_that_is_cancelled_as_it_begins_has_a_span_that_says_so() {
    capture();
    let runner = Runner::new();
    *CANCELS.lock().unwrap() = Some(runner.clone());
    runner.add_task(Task::new(std::future::pending::<()>()).named("cancelled-as-it-begins"));
    runner.idle().await;
    let (_, span) = span_of("cancelled-as-it-begins");
    assert_eq!(span.fields["otel.status_code"], "ERROR");
    assert_eq!(span.fields["error.type"], "aborted");
    assert!(span.closed);
    assert_eq!(
        end_of("cancelled-as-it-begins").fields["task.end"],
        "aborted"
    );
}

#[test]
fn task_aborted_while_waiting_does_not_end_in_anothers_span() {
    capture();
    let runner = Runner::builder().max_running(1).build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for name in ["had-the-place", "never-had-the-place"] {
            runner.add_task(Task::new(std::future::pending::<()>()).named(name));
        }
        tokio::task::yield_now().await;
    });
    drop(runtime);
    let (id, _) = span_of("had-the-place");
    assert_eq!(end_of("had-the-place").span, Some(id));
    assert_eq!(end_of("never-had-the-place").span, None);
}

#[cfg(feature = "jobs")]
mod jobs {
    use serde::{Deserialize, Serialize};
    use tower_background_tasks::{Job, JobContext, Jobs, StoredJob, TaskResult};

    use super::{Level, PanicsWhenShown, SEEN, SeenEvent, capture, info_span};

    #[derive(Serialize, Deserialize)]
    struct Seen;

    impl Job for Seen {
        const NAME: &'static str = "seen-on-a-worker";
        type State = ();

        async fn run(self, (): (), _: JobContext) -> TaskResult {
            tokio::task::yield_now().await;
            tracing::info!(inside = "the job");
            Ok(())
        }
    }

    #[derive(Serialize, Deserialize)]
    enum Fails {
        AnError,
        APanic,
        AnUnshowableError,
    }

    impl Job for Fails {
        const NAME: &'static str = "fails-on-a-worker";
        type State = ();

        async fn run(self, (): (), _: JobContext) -> TaskResult {
            match self {
                Self::AnError => Err(std::io::Error::other("no card").into()),
                Self::APanic => panic!("on purpose: a job"),
                Self::AnUnshowableError => Err(PanicsWhenShown.into()),
            }
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_on_a_worker_is_one_event_in_its_span() {
        capture();
        let jobs = Jobs::new(()).register::<Fails>();
        let unknown =
            serde_json::json!({"id": "0FHYPNQPEB8TFT2SBGGSVJH58G", "name": "unknown-on-a-worker"});
        for (job, name, level, end, error) in [
            (
                StoredJob::new(&Fails::AnError).unwrap(),
                "fails-on-a-worker",
                Level::WARN,
                "failed",
                "no card",
            ),
            (
                StoredJob::new(&Fails::APanic).unwrap(),
                "fails-on-a-worker",
                Level::ERROR,
                "panicked",
                "on purpose: a job",
            ),
            (
                StoredJob::new(&Fails::AnUnshowableError).unwrap(),
                "fails-on-a-worker",
                Level::WARN,
                "failed",
                "its error cannot be shown",
            ),
            (
                serde_json::from_value(unknown).unwrap(),
                "unknown-on-a-worker",
                Level::ERROR,
                "unreadable",
                "no job is registered",
            ),
        ] {
            let id = job.id().to_string();
            jobs.run(job).await.unwrap_err();
            let (spans, events) = {
                let seen = SEEN.lock().unwrap();
                (seen.spans.clone(), seen.events.clone())
            };
            let is_it = |id_of: Option<&String>| id_of == Some(&id);
            let mut spans = spans
                .iter()
                .filter(|(_, span)| is_it(span.fields.get("task.id")));
            let (number, span) = spans.next().unwrap();
            assert!(spans.next().is_none() && span.closed);
            assert_eq!(
                (&*span.fields["otel.name"], &*span.fields["error.type"]),
                (name, end)
            );
            assert_eq!(span.fields["otel.status_code"], "ERROR");
            let events: Vec<_> = events
                .iter()
                .filter(|event| event.span == Some(*number))
                .collect();
            assert_eq!((events.len(), events[0].level), (1, level));
            assert!(events[0].fields["error"].contains(error), "{events:?}");
        }
    }

    #[tokio::test]
    async fn worker_span_tells_job_and_request_and_links_its_trace() {
        capture();
        let stored = serde_json::json!({
            "id": "0FHYPNQPEB8TFT2SBGGSVJH58E", "name": "seen-on-a-worker", "payload": null,
            "request": {"method": "POST", "path": "/orders/7"}, "trace": {"traceparent": "00-a-b-01"},
        });
        let stored: StoredJob = serde_json::from_value(stored).unwrap();
        let cause = info_span!("the trace it came from");
        let from = cause.clone();
        let jobs = Jobs::new(())
            .register::<Seen>()
            .link_span(move |span, stored| {
                assert_eq!(stored.trace()["traceparent"], "00-a-b-01");
                span.follows_from(&from);
            });
        jobs.run(stored.clone()).await.unwrap();
        let linked = jobs.link_span(|_, _| panic!("on purpose: a link"));
        linked.run(stored).await.unwrap();

        // Copied, so that a failed assertion leaves no lock behind for the spans that end by it.
        let (spans, events) = {
            let seen = SEEN.lock().unwrap();
            (seen.spans.clone(), seen.events.clone())
        };
        let is_it = |name: &String| name == "seen-on-a-worker";
        let spans = spans.iter();
        let mut spans: Vec<_> = spans
            .filter(|(_, span)| span.fields.get("otel.name").is_some_and(is_it))
            .collect();
        spans.sort_by_key(|(_, span)| span.follows.len());
        let [(_, unlinked), (id, span)] = spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(
            (span.name, &*span.fields["task.kind"]),
            ("background_task", "job")
        );
        let fields = [
            ("task.id", "0FHYPNQPEB8TFT2SBGGSVJH58E"),
            ("task.attempt", "1"),
            ("http.request.method", "POST"),
            ("url.path", "/orders/7"),
            ("traceparent", "00-a-b-01"),
        ];
        for (field, value) in fields {
            assert_eq!(span.fields[field], value);
        }
        assert_eq!(span.follows, [cause.id().unwrap().into_u64()]);
        assert!(unlinked.follows.is_empty() && span.closed && unlinked.closed);
        let inside = |event: &&SeenEvent| event.span == Some(*id);
        let events: Vec<_> = events.iter().filter(inside).collect();
        assert!(events[0].fields.contains_key("inside"));
        assert_eq!(events[1].fields["message"], "background job completed");
        assert_eq!((events.len(), events[1].level), (2, Level::DEBUG));
    }
}

/// Where Tokio names its tasks: `RUSTFLAGS="--cfg tokio_unstable"`.
#[cfg(tokio_unstable)]
#[tokio::test]
async fn batches_have_their_first_tasks_name_and_place() {
    capture();
    let runner = Runner::new();
    runner.add_task(Task::new(async {}).named("named-on-a-worker"));
    runner.add_task(Task::blocking(|| ()).named("named-on-a-thread"));
    runner.idle().await;
    let seen = SEEN.lock().unwrap();
    for name in ["named-on-a-worker", "named-on-a-thread"] {
        let names = seen.spans.values();
        let mut names = names.filter_map(|span| span.fields.get("task.name"));
        let place = format!("{name} (tests/observe/main.rs:");
        assert!(names.any(|name| name.starts_with(&place)), "{place}");
    }
}
