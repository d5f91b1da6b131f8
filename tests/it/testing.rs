//! What tests of handlers rely on: a response read to its end, a wait that cannot be fooled, a
//! runner that records, tasks run by their name.

use std::{
    future::pending,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Instant, sleep};
use tower_background_tasks::{
    BackgroundTasks, BoxError, Idle, ResponseBody, ResponseEnd, Runner, Task, TaskInfo,
    testing::finish,
};

use crate::support::{Outcomes, ScriptedBody, Step, full, get, open_response, respond, soon};

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
