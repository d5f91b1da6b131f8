//! What tests of handlers rely on: a response read to its end, a wait that cannot be fooled, a
//! runner that records, tasks run by their name.

use std::{
    future::pending,
    panic::{UnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tower_background_tasks::{
    BackgroundTasks, BoxError, Idle, ResponseBody, ResponseEnd, Runner, Task, TaskInfo, TaskState,
    assert_added,
    testing::{self, finish},
};

use crate::support::{
    Log, Outcomes, PanicsWhenDropped, ScriptedBody, Step, full, get, open_response, panics_in,
    respond, soon,
};

const DATA: Step = Step::Data(b"hello");

/// An accepted response with this body, whose task tells its outcome.
fn respond_with<B: Body>(body: B) -> (Runner, Outcomes, Response<ResponseBody<B>>) {
    let (runner, outcomes, tasks) = (Runner::new(), Outcomes::new(), BackgroundTasks::new());
    tasks.add_task(outcomes.task());
    let mut response = runner.attach(Response::new(body), tasks);
    *response.status_mut() = StatusCode::ACCEPTED;
    (runner, outcomes, response)
}

#[tokio::test]
async fn finish_gives_the_head_and_the_bytes() {
    let (_, _, response) = respond_with(ScriptedBody::new([DATA, DATA, Step::Trailers]));
    let response = soon(finish(response)).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(&response.body()[..], b"hellohello");
}

#[tokio::test]
async fn finish_ends_the_response_once_and_its_tasks_run() {
    let (runner, mut outcomes, response) = respond_with(ScriptedBody::new([DATA]));
    let held = soon(finish(response)).await.unwrap();
    let outcome = outcomes.only(&runner).await;
    assert_eq!(
        (outcome.end, outcome.body_bytes),
        (ResponseEnd::Completed, 5)
    );
    assert_eq!(runner.stats().added, 1);
    drop(held);
}

/// Has ended from the start.
struct Ended;

impl Body for Ended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        panic!("polled past its end");
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn finish_does_not_poll_a_body_that_has_ended() {
    let (runner, mut outcomes, response) = respond_with(Ended);
    assert!(finish(response).await.unwrap().body().is_empty());
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Completed);
}

#[tokio::test]
async fn finish_gives_the_bodys_error_and_its_tasks_run() {
    let (runner, mut outcomes, response) = respond_with(ScriptedBody::new([DATA, Step::Error]));
    let error = finish(response).await.unwrap_err();
    assert_eq!(error.to_string(), "the body broke");
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::BodyFailed);
}

#[tokio::test]
async fn finish_dropped_half_way_aborts_the_response() {
    let (runner, mut outcomes, response) = respond_with(ScriptedBody::new([DATA, Step::Pending]));
    assert!(finish(response).now_or_never().is_none());
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Aborted);
}

const SECOND: Duration = Duration::from_secs(1);
const UNREAD: &str = "read the body to its end or drop the response";
const HELD: &str = "release or drop what `hold` returned";

/// Waits until the runner is idle, and tells how long that took by a paused clock.
async fn idle(runner: &Runner) -> (Idle, Duration) {
    let begun = Instant::now();
    let idle = runner.idle().await;
    (idle, begun.elapsed())
}

fn named(name: &'static str) -> Task {
    Task::new(async {}).named(name)
}

/// Ends the response after this time.
fn ends_after<T: Send + 'static>(time: Duration, response: T) {
    tokio::spawn(async move {
        sleep(time).await;
        drop(response);
    });
}

#[tokio::test(start_paused = true)]
async fn idle_names_what_waits_for_a_response_after_a_second() {
    let runner = Runner::new();
    let response = respond(&runner, get("/signup"), |tasks| {
        tasks.add_task(named("mail"));
        tasks.add_task(named("audit"));
        full("hello")
    })
    .await;
    let (idle, took) = idle(&runner).await;
    assert_eq!((idle.is_complete(), took), (false, SECOND));
    let names: Vec<_> = idle.waiting().iter().map(TaskInfo::name).collect();
    assert_eq!(names, ["mail", "audit"]);
    let line = idle.to_string();
    let begin = format!(
        "2 background tasks still waiting: {UNREAD} (mail: waiting for 1.0s, for GET /signup, added at tests/it/testing.rs:"
    );
    assert!(line.starts_with(&begin), "{line}");
    assert!(line.contains("; audit: ") && line.ends_with(')'), "{line}");
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn idle_is_complete_at_once_when_the_response_has_ended() {
    let (runner, mut outcomes, response) = respond_with(full("hello").into_body());
    finish(response).await.unwrap();
    let (idle, took) = idle(&runner).await;
    assert_eq!((idle.is_complete(), took), (true, Duration::ZERO));
    assert!(idle.waiting().is_empty());
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Completed);
}

#[tokio::test(start_paused = true)]
async fn idle_sees_a_response_that_ends_within_the_second() {
    let (runner, mut outcomes, response) = respond_with(full("hello").into_body());
    let time = SECOND * 9 / 10;
    ends_after(time, response);
    let (idle, took) = idle(&runner).await;
    assert_eq!((idle.is_complete(), took), (true, time));
    assert_eq!(runner.stats().completed, 1);
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Aborted);
}

#[tokio::test(start_paused = true)]
async fn idle_waits_for_tasks_that_began_within_the_second() {
    let runner = Runner::new();
    let (response, tasks) = open_response(&runner);
    tasks.add_task(async { sleep(5 * SECOND).await });
    ends_after(SECOND / 2, response);
    let (idle, took) = idle(&runner).await;
    assert_eq!((idle.is_complete(), took), (true, 11 * SECOND / 2));
    assert_eq!(runner.stats().completed, 1);
}

#[tokio::test(start_paused = true)]
async fn idle_waits_for_what_runs_before_it_names_others() {
    let runner = Runner::new();
    let (_held, waits) = open_response(&runner);
    waits.add_task(named("waits"));
    let (response, tasks) = open_response(&runner);
    tasks.add_task(async { sleep(5 * SECOND).await });
    ends_after(SECOND / 2, response);
    let (idle, took) = idle(&runner).await;
    assert_eq!((runner.stats().completed, took), (1, 11 * SECOND / 2));
    assert_eq!(
        (idle.waiting().len(), idle.waiting()[0].name()),
        (1, "waits")
    );
}

#[tokio::test(start_paused = true)]
async fn idle_returns_when_what_waited_is_cancelled() {
    let runner = Runner::new();
    let (_held, tasks) = open_response(&runner);
    let id = tasks.try_add_task(async {}).unwrap();
    let canceller = runner.clone();
    tokio::spawn(async move {
        sleep(SECOND / 2).await;
        assert!(canceller.cancel(id));
    });
    let (idle, took) = idle(&runner).await;
    assert_eq!((idle.is_complete(), took), (true, SECOND / 2));
}

#[tokio::test(start_paused = true)]
async fn idle_does_not_wait_for_a_task_run_by_hand() {
    let runner = Runner::new();
    let (_held, tasks) = open_response(&runner);
    tasks.add_task(pending::<()>());
    let mut by_hand = Box::pin(tasks.run());
    assert!(by_hand.as_mut().now_or_never().is_none());
    assert_eq!(runner.stats().running, 1);
    let (idle, took) = idle(&runner).await;
    assert_eq!((idle.is_complete(), took), (true, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn idle_tells_what_to_do_with_held_tasks() {
    let runner = Runner::new();
    let (response, tasks) = open_response(&runner);
    let held = tasks.hold();
    held.add_task(named("held"));
    let line = idle(&runner).await.0.to_string();
    let begin = format!("1 background task still waiting: {HELD} (held: ");
    assert!(line.starts_with(&begin), "{line}");
    tasks.add_task(named("queued"));
    let line = idle(&runner).await.0.to_string();
    let begin = format!("2 background tasks still waiting: {UNREAD}, and {HELD} (held: ");
    assert!(line.starts_with(&begin), "{line}");
    held.release();
    let line = idle(&runner).await.0.to_string();
    assert!(line.contains(UNREAD) && !line.contains(HELD), "{line}");
    drop(response);
    let complete = idle(&runner).await.0.to_string();
    assert_eq!(complete, "no background task waits for its response");
}

#[tokio::test(start_paused = true)]
async fn idle_names_five_and_counts_the_others() {
    let runner = Runner::new();
    let (_held, tasks) = open_response(&runner);
    for name in ["1", "2", "3", "4", "5"] {
        tasks.add_task(named(name));
    }
    let five = idle(&runner).await.0.to_string();
    assert!(five.contains("; 5: ") && !five.contains("more"), "{five}");
    tasks.add_task(named("6"));
    tasks.add_task(named("7"));
    let (idle, _) = idle(&runner).await;
    let line = idle.to_string();
    assert!(line.ends_with("; and 2 more)"), "{line}");
    assert!(line.contains("; 5: ") && !line.contains("; 6: "), "{line}");
    assert_eq!(idle.waiting().len(), 7);
}

/// A task that writes to `log`, which no task here may do.
fn must_not_run(log: &Log, name: &'static str) -> Task {
    Task::new(log.task(name)).named(name)
}

fn recorded(runner: &Runner) -> Vec<String> {
    let recorded = runner.recorded();
    recorded.iter().map(|task| task.name().to_owned()).collect()
}

/// Every task was recorded and ended, and none waits.
fn assert_all_recorded(runner: &Runner) {
    let (stats, recorded) = (runner.stats(), runner.recorded().len() as u64);
    assert_eq!((stats.added, stats.skipped), (recorded, recorded));
    assert_eq!((stats.pending, stats.running), (0, 0));
    assert!(runner.tasks().is_empty());
}

#[tokio::test(start_paused = true)]
async fn recording_runner_runs_nothing_however_a_task_is_added() {
    let (runner, log) = (Runner::recording(), Log::default());
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(must_not_run(&log, "handler"));
        let (log, blocking) = (log.clone(), log.clone());
        tasks.add_blocking_task(move || blocking.write("blocking"));
        assert!(tasks.try_add_task(must_not_run(&log, "tried")).is_ok());
        assert!(tasks.is_empty());
        full("hello")
    })
    .await;
    runner.add_task(must_not_run(&log, "no request"));
    let brought = BackgroundTasks::new();
    brought.add_task(must_not_run(&log, "brought"));
    brought.add_task(must_not_run(&log, "brought too"));
    let attached = runner.attach(full("hello"), brought.clone());
    brought.add_task(must_not_run(&log, "brought late"));
    finish(response).await.unwrap();
    finish(attached).await.unwrap();
    let (idle, took) = idle(&runner).await;
    assert_eq!((idle.is_complete(), took), (true, Duration::ZERO));
    assert!(log.lines().is_empty());
    let names = recorded(&runner);
    let blocking = "it::testing::recording_runner_runs_nothing_however_a_task_is_added";
    assert_eq!(names[..3], ["handler", blocking, "tried"]);
    assert_eq!(
        names[3..],
        ["no request", "brought", "brought too", "brought late"]
    );
    assert_all_recorded(&runner);
}

#[tokio::test]
async fn recording_runner_takes_the_tasks_a_handler_returns() {
    async fn signup(tasks: BackgroundTasks) -> (BackgroundTasks, &'static str) {
        tasks.add_task(named("handler"));
        let returned = BackgroundTasks::new();
        returned.add_task(named("response"));
        (returned, "signed up")
    }
    let runner = Runner::recording();
    let app = axum::Router::new()
        .route("/signup", axum::routing::get(signup))
        .layer(runner.layer());
    let request = get("/signup").map(|()| axum::body::Body::empty());
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(recorded(&runner), ["handler", "response"]);
    drop(response);
    assert_all_recorded(&runner);
}

#[tokio::test]
async fn recorded_tasks_have_their_request_and_their_place() {
    let runner = Runner::recording();
    let line = line!() + 2;
    let _response = respond(&runner, get("/signup?secret=1"), |tasks| {
        tasks.add_task(named("mail"));
        full("hello")
    })
    .await;
    let task = &runner.recorded()[0];
    assert_eq!(
        (task.path(), task.location().line()),
        (Some("/signup"), line)
    );
    assert_eq!(task.location().file(), file!());
    assert_eq!((task.id().as_u64(), task.state()), (1, TaskState::Waiting));
}

#[test]
fn a_recorded_task_ends_skipped_once_and_says_why() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ends);
    let runner = Runner::builder()
        .on_task_end(move |report| told.lock().unwrap().push(report.end().to_string()))
        .recording()
        .build();
    runner.add_task(named("mail"));
    let expected = ["skipped: the runner only records"];
    assert_eq!(*ends.lock().unwrap(), expected);
    drop(runner);
    assert_eq!(*ends.lock().unwrap(), expected);
}

#[tokio::test]
async fn held_tasks_are_recorded_once_they_are_released() {
    let (runner, log) = (Runner::recording(), Log::default());
    let (response, tasks) = open_response(&runner);
    let held = tasks.hold();
    held.add_task(must_not_run(&log, "held"));
    held.add_task(must_not_run(&log, "held too"));
    tasks.add_task(must_not_run(&log, "queued"));
    assert_eq!(recorded(&runner), ["queued"]);
    let late = held.clone();
    held.release();
    late.add_task(must_not_run(&log, "late"));
    drop(response);
    assert!(runner.idle().await.is_complete());
    assert_eq!(recorded(&runner), ["queued", "held", "held too", "late"]);
    assert!(log.lines().is_empty());
    assert_all_recorded(&runner);
}

#[tokio::test]
async fn unreleased_tasks_are_not_recorded() {
    let (runner, log) = (Runner::recording(), Log::default());
    let (_response, tasks) = open_response(&runner);
    let held = tasks.hold();
    held.add_task(must_not_run(&log, "held"));
    let inner = held.hold();
    inner.add_task(must_not_run(&log, "inner"));
    inner.release();
    drop(held);
    assert!(runner.recorded().is_empty() && log.lines().is_empty());
    let stats = runner.stats();
    assert_eq!((stats.added, stats.skipped, stats.pending), (2, 2, 0));
}

#[tokio::test]
async fn held_stand_alone_tasks_are_recorded_with_their_queue() {
    let (runner, tasks) = (Runner::recording(), BackgroundTasks::new());
    let held = tasks.hold();
    held.add_task(named("held"));
    let _response = runner.attach(full("hello"), tasks);
    assert!(runner.recorded().is_empty());
    held.release();
    assert_eq!(recorded(&runner), ["held"]);
    assert_all_recorded(&runner);
}

#[test]
fn a_recorded_task_s_work_is_dropped_at_once() {
    let runner = Runner::recording();
    let (_response, tasks) = open_response(&runner);
    let token = Arc::new(());
    // It holds its own queue.
    let works_with = (tasks.clone(), Arc::clone(&token));
    tasks.add_task(async move { drop(works_with) });
    let works_with = Arc::clone(&token);
    let held = tasks.hold();
    held.add_task(async move { drop(works_with) });
    held.release();
    assert_eq!(Arc::strong_count(&token), 1);
    assert_eq!(runner.recorded().len(), 2);
}

#[test]
fn a_recorded_task_s_destructor_may_panic_or_add() {
    struct AddsWhenDropped(BackgroundTasks);

    impl Drop for AddsWhenDropped {
        fn drop(&mut self) {
            self.0.add_task(named("by a destructor"));
        }
    }

    let runner = Runner::recording();
    let (_response, tasks) = open_response(&runner);
    let (panics, adds) = (PanicsWhenDropped, AddsWhenDropped(tasks.clone()));
    tasks.add_task(Task::new(async move { drop(panics) }).named("panics"));
    tasks.add_task(Task::new(async move { drop(adds) }).named("adds"));
    assert_eq!(recorded(&runner), ["panics", "adds", "by a destructor"]);
    assert_all_recorded(&runner);
}

#[tokio::test]
async fn shielded_work_of_a_recorded_request_runs_in_place() {
    let runner = Runner::recording();
    let (_response, tasks) = open_response(&runner);
    let adds = tasks.clone();
    let shielded = tasks.shield(async move {
        adds.add_task(named("mail"));
        7
    });
    assert!(runner.recorded().is_empty(), "it is a part of its handler");
    assert_eq!(shielded.await, Ok(7));
    assert_eq!(recorded(&runner), ["mail"]);
    assert_all_recorded(&runner);
}

#[tokio::test]
async fn recorded_is_empty_on_a_runner_that_runs() {
    let runner = Runner::new();
    runner.add_task(async {});
    assert!(runner.idle().await.is_complete());
    assert!(runner.recorded().is_empty());
    assert_eq!(runner.stats().completed, 1);
}

#[tokio::test]
async fn shutdown_of_a_recording_runner_is_clean() {
    let runner = Runner::recording();
    runner.add_task(pending::<()>());
    assert!(runner.shutdown(SECOND).await.is_clean());
    assert_all_recorded(&runner);
}

#[cfg(feature = "jobs")]
#[tokio::test]
async fn jobs_are_recorded_like_other_tasks() {
    use crate::job_support::{note, notes};

    let log = Log::default();
    let runner = Runner::builder().jobs(notes(&log)).recording().build();
    let (_response, tasks) = open_response(&runner);
    tasks.add_job(note("of a request")).await.unwrap();
    let held = tasks.hold();
    held.add_job(note("held")).await.unwrap();
    held.release();
    runner.add_job(note("of no request")).await.unwrap();
    assert!(runner.idle().await.is_complete());
    assert_eq!(recorded(&runner), ["note", "note", "note"]);
    assert!(log.lines().is_empty());
    assert_all_recorded(&runner);
}

/// A queue with the tasks "audit", "mail", "audit", "mail", which write their place to the log.
fn mails_and_audits() -> (BackgroundTasks, Log) {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    for (place, name) in [(1, "audit"), (2, "mail"), (3, "audit"), (4, "mail")] {
        tasks.add_task(Task::new(log.task(format!("{name} {place}"))).named(name));
    }
    (tasks, log)
}

#[tokio::test]
async fn run_named_runs_those_alone_in_order_and_once() {
    let (tasks, log) = mails_and_audits();
    assert_eq!(tasks.run_named("mail").await.len(), 2);
    assert_eq!(log.lines(), ["mail 2", "mail 4"]);
    assert!(tasks.run_named("mail").await.is_empty());
    assert_eq!(log.lines().len(), 2);
    assert_eq!(tasks.names(), ["audit", "audit"]);
    assert_eq!(tasks.run().await.len(), 2);
    assert_eq!(log.lines()[2..], ["audit 1", "audit 3"]);
}

#[tokio::test]
async fn run_named_of_no_such_name_leaves_the_queue() {
    let (tasks, log) = mails_and_audits();
    assert!(tasks.run_named("mai").await.is_empty());
    assert_eq!(tasks.names(), ["audit", "mail", "audit", "mail"]);
    assert!(log.lines().is_empty());
    drop(tasks.run().await);
}

#[tokio::test]
async fn run_named_runs_those_of_the_name_that_are_added_meanwhile() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    let (adds, later) = (tasks.clone(), log.clone());
    let mail = async move {
        adds.add_task(Task::new(later.task("audit")).named("audit"));
        adds.add_task(Task::new(later.task("mail, later")).named("mail"));
    };
    tasks.add_task(Task::new(mail).named("mail"));
    assert_eq!(tasks.run_named("mail").await.len(), 2);
    assert_eq!(
        (log.lines(), tasks.names()),
        (vec!["mail, later".into()], vec!["audit".into()])
    );
    drop(tasks.run().await);
}

#[tokio::test]
async fn run_named_dropped_aborts_one_and_keeps_the_others() {
    let (runner, ends) = (Runner::new(), Log::default());
    let (response, tasks) = open_response(&runner);
    tasks.add_task(Task::new(ends.task("audit")).named("audit"));
    tasks.add_task(Task::new(pending::<()>()).named("mail"));
    tasks.add_task(Task::new(ends.task("mail")).named("mail"));
    let mut running = Box::pin(tasks.run_named("mail"));
    assert!(running.as_mut().now_or_never().is_none());
    drop(running);
    assert_eq!(tasks.names(), ["audit", "mail"]);
    drop(response);
    assert!(runner.idle().await.is_complete());
    assert_eq!(ends.lines(), ["audit", "mail"]);
    assert_eq!((runner.stats().aborted, runner.stats().completed), (1, 2));
}

/// The message of the one panic of `test`, with its place.
fn panic_of(name: &str, test: impl FnOnce() + Send + UnwindSafe + 'static) -> String {
    let panics = panics_in(name, |_| assert!(catch_unwind(test).is_err()));
    assert_eq!(panics.len(), 1, "{panics:?}");
    panics[0].clone()
}

#[tokio::test]
async fn assert_added_holds_for_exactly_those_names_in_order() {
    let tasks = BackgroundTasks::new();
    assert_added!(tasks, []);
    assert_added!(&tasks, [],);
    tasks.add_task(named("mail"));
    tasks.add_task(named("audit"));
    assert_added!(tasks, ["mail", "audit"]);
    assert_added!(&&tasks, [String::from("mail"), "audit"],);
    drop(tasks.run_named("mail").await);
    assert_added!(tasks, ["audit",]);
    let runner = Runner::recording();
    assert_added!(runner, []);
    let _response = runner.attach(full("hello"), tasks);
    assert_added!(&runner, ["audit"]);
}

#[test]
fn assert_added_shows_both_lists_and_every_place() {
    let [mail, assertion] = [line!() + 3, line!() + 5];
    let panic = panic_of("assert_added: lists", || {
        let tasks = BackgroundTasks::new();
        tasks.add_task(named("mail"));
        tasks.add_task(named("audit"));
        assert_added!(tasks, ["audit", "mail"]);
    });
    let file = file!();
    assert!(
        panic.contains(&format!("{file}:{assertion}:9:\n")),
        "{panic}"
    );
    let lists = format!(
        "other tasks were added than expected\n\
        expected:\n  \"audit\"\n  \"mail\"\n\
        added:\n  \"mail\", at {file}:{mail}:15\n  \"audit\", at {file}:{}:15",
        mail + 1
    );
    assert!(panic.ends_with(&lists), "{panic}");
}

#[test]
fn assert_added_fails_for_one_too_few_or_too_many() {
    for names in [vec![], vec!["mail", "mail"], vec!["mai"]] {
        let panic = panic_of("assert_added: count", move || {
            let runner = Runner::recording();
            runner.add_task(named("mail"));
            testing::added::assert_added(&runner, &names);
        });
        assert!(panic.contains("\nadded:\n  \"mail\", at "), "{panic}");
    }
}

#[test]
fn assert_added_asks_for_a_runner_that_records() {
    let line = line!() + 2;
    let panic = panic_of("assert_added: runner", || {
        assert_added!(Runner::new(), []);
    });
    let place = format!("{}:{line}:9:\n", file!());
    assert!(panic.contains(&place), "{panic}");
    assert!(
        panic.ends_with("make it with `Runner::recording()`"),
        "{panic}"
    );
}

#[test]
fn assert_added_asks_for_the_runner_that_records() {
    let panic = panic_of("assert_added: queue", || {
        let runner = Runner::recording();
        let (_response, tasks) = open_response(&runner);
        tasks.add_task(named("mail"));
        assert_added!(tasks, []);
    });
    assert!(
        panic.ends_with("pass the `Runner` to `assert_added!`"),
        "{panic}"
    );
}
