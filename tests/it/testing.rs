//! What tests of handlers rely on: a response read to its end, a wait that cannot be fooled, a
//! runner that records, tasks run by their name.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use tower_background_tasks::{
    BackgroundTasks, BoxError, ResponseBody, ResponseEnd, Runner, testing::finish,
};

use crate::support::{Outcomes, ScriptedBody, Step, soon};

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
