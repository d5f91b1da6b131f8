//! How a response ends, seen without a socket: each end fires once, and says what it was.

use std::{
    convert::Infallible,
    future::{pending, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Waker},
};

use bytes::Buf;
use futures_util::{FutureExt, stream};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_background_tasks::{BackgroundTasks, BoxError, ResponseEnd, ResponseOutcome, Runner};

use crate::support::{Log, Outcomes, ScriptedBody, Step, get, respond, soon};

/// Reads `frames` frames of a scripted response and drops it.
async fn outcome_of(
    request: Request<()>,
    head: http::response::Builder,
    body: ScriptedBody,
    frames: usize,
) -> ResponseOutcome {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let mut response = Some(head.body(body).unwrap());
    let response = runner
        .layer()
        .layer(service_fn(|request: Request<()>| {
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            tasks.add_task(outcomes.task());
            ready(Ok::<_, Infallible>(response.take().unwrap()))
        }))
        .oneshot(request)
        .await
        .unwrap();
    let mut body = response.into_body();
    for _ in 0..frames {
        let _ = body.frame().now_or_never();
    }
    drop(body);
    outcomes.only(&runner).await
}

fn ok() -> http::response::Builder {
    Response::builder()
}

const DATA: Step = Step::Data(b"hello");

#[tokio::test]
async fn the_bodys_none_completes() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA, DATA]), 3).await;
    assert_eq!(outcome.end, ResponseEnd::Completed);
    assert_eq!(outcome.body_bytes, 10);
    assert_eq!(outcome.status, Some(StatusCode::OK));
}

#[tokio::test]
async fn a_body_polled_after_its_end_fires_once() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA]), 5).await;
    assert_eq!(outcome.end, ResponseEnd::Completed);
}

#[tokio::test]
async fn a_drop_before_the_end_aborts() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA, DATA]), 1).await;
    assert_eq!(outcome.end, ResponseEnd::Aborted);
    assert_eq!(outcome.body_bytes, 5);
}

#[tokio::test]
async fn drop_after_the_last_frame_aborts_where_nobody_could_know() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA]), 1).await;
    assert_eq!(outcome.end, ResponseEnd::Aborted);
}

#[tokio::test]
async fn a_drop_after_a_pending_poll_aborts() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA, Step::Pending]), 2).await;
    assert_eq!(outcome.end, ResponseEnd::Aborted);
}

/// Data that says it is as long as can be.
struct Endless;

impl Buf for Endless {
    fn remaining(&self) -> usize {
        usize::MAX
    }

    fn chunk(&self) -> &[u8] {
        &[]
    }

    fn advance(&mut self, _: usize) {}
}

#[tokio::test]
async fn more_bytes_than_can_be_counted_are_no_panic() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let frames = (0..3).map(|_| Ok::<_, Infallible>(Frame::data(Endless)));
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(outcomes.task());
        Response::new(StreamBody::new(stream::iter(frames.clone())))
    })
    .await;
    let mut body = response.into_body();
    while body.frame().await.is_some() {}
    let outcome = outcomes.only(&runner).await;
    assert_eq!(outcome.body_bytes, (usize::MAX as u64).saturating_mul(3));
    assert_eq!(outcome.end, ResponseEnd::Completed);
}

#[tokio::test]
async fn an_error_of_the_body_is_told() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA, Step::Error]), 2).await;
    assert_eq!(outcome.end, ResponseEnd::BodyFailed);
    assert_eq!(outcome.body_bytes, 5);
}

#[tokio::test]
async fn body_error_fires_once_though_the_body_goes_on() {
    let body = ScriptedBody::new([DATA, Step::Error, DATA]);
    let outcome = outcome_of(get("/"), ok(), body, 4).await;
    assert_eq!(outcome.end, ResponseEnd::BodyFailed);
}

#[tokio::test]
async fn trailers_complete_without_none() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA, Step::Trailers]), 2).await;
    assert_eq!(outcome.end, ResponseEnd::Completed);
}

#[tokio::test]
async fn is_end_stream_behind_the_last_frame_completes() {
    let mut body = ScriptedBody::new([DATA]);
    body.knows_its_end = true;
    let outcome = outcome_of(get("/"), ok(), body, 1).await;
    assert_eq!(outcome.end, ResponseEnd::Completed);
}

#[tokio::test]
async fn an_unpolled_body_that_is_empty_completes() {
    let mut body = ScriptedBody::new([]);
    body.knows_its_end = true;
    let outcome = outcome_of(get("/"), ok(), body, 0).await;
    assert_eq!(
        (outcome.end, outcome.body_bytes),
        (ResponseEnd::Completed, 0)
    );
}

#[tokio::test]
async fn an_unpolled_body_that_has_something_aborts() {
    let outcome = outcome_of(get("/"), ok(), ScriptedBody::new([DATA]), 0).await;
    assert_eq!(outcome.end, ResponseEnd::Aborted);
}

#[tokio::test]
async fn http2_length_reached_is_no_end_where_trailers_are_announced() {
    for (version, trailer, end) in [
        (Version::HTTP_11, Some("digest"), ResponseEnd::Completed),
        (Version::HTTP_2, None, ResponseEnd::Completed),
        (Version::HTTP_2, Some("digest"), ResponseEnd::Aborted),
        (Version::HTTP_3, Some("digest"), ResponseEnd::Aborted),
    ] {
        let mut request = get("/");
        *request.version_mut() = version;
        let mut body = ScriptedBody::new([DATA, Step::Trailers]);
        body.size_hint = SizeHint::with_exact(5);
        let head = trailer
            .into_iter()
            .fold(ok(), |head, name| head.header("trailer", name));
        let outcome = outcome_of(request, head, body, 1).await;
        assert_eq!((outcome.end, outcome.body_bytes), (end, 5));
    }
}

#[tokio::test]
async fn content_length_reached_completes_and_one_byte_less_does_not() {
    for (length, end) in [
        ("5", ResponseEnd::Completed),
        ("4", ResponseEnd::Completed),
        ("6", ResponseEnd::Aborted),
        ("nonsense", ResponseEnd::Aborted),
    ] {
        let head = ok().header("content-length", length);
        let outcome = outcome_of(get("/"), head, ScriptedBody::new([DATA, DATA]), 1).await;
        assert_eq!(outcome.end, end, "{length}");
    }
}

#[tokio::test]
async fn none_short_of_the_declared_length_is_a_body_failure() {
    let head = ok().header("content-length", "6");
    let outcome = outcome_of(get("/"), head, ScriptedBody::new([DATA]), 2).await;
    assert_eq!(outcome.end, ResponseEnd::BodyFailed);
    let mut body = ScriptedBody::new([DATA]);
    body.size_hint = SizeHint::with_exact(6);
    let outcome = outcome_of(get("/"), ok(), body, 2).await;
    assert_eq!(outcome.end, ResponseEnd::BodyFailed);
}

#[tokio::test]
async fn the_exact_size_reached_completes() {
    for (size, end) in [(5, ResponseEnd::Completed), (6, ResponseEnd::Aborted)] {
        let mut body = ScriptedBody::new([DATA, DATA]);
        body.size_hint = SizeHint::with_exact(size);
        let outcome = outcome_of(get("/"), ok(), body, 1).await;
        assert_eq!(outcome.end, end, "{size}");
    }
}

#[tokio::test]
async fn no_content_by_status_completes_unpolled() {
    for status in [100, 101, 103, 199, 204, 304] {
        let head = ok().status(status);
        let outcome = outcome_of(get("/"), head, ScriptedBody::new([DATA]), 0).await;
        assert_eq!(outcome.end, ResponseEnd::Completed, "{status}");
        assert_eq!(outcome.status.unwrap().as_u16(), status);
    }
    for status in [200, 205, 206, 303, 404, 500] {
        let head = ok().status(status);
        let outcome = outcome_of(get("/"), head, ScriptedBody::new([DATA]), 0).await;
        assert_eq!(outcome.end, ResponseEnd::Aborted, "{status}");
    }
}

#[tokio::test]
async fn no_content_by_method_completes_unpolled() {
    for (method, status, end) in [
        (Method::HEAD, 200, ResponseEnd::Completed),
        (Method::HEAD, 404, ResponseEnd::Completed),
        (Method::CONNECT, 200, ResponseEnd::Completed),
        (Method::CONNECT, 407, ResponseEnd::Aborted),
        (Method::GET, 200, ResponseEnd::Aborted),
    ] {
        let request = Request::builder().method(&method).body(()).unwrap();
        let head = ok().status(status);
        let outcome = outcome_of(request, head, ScriptedBody::new([DATA]), 0).await;
        assert_eq!(outcome.end, end, "{method} {status}");
    }
}

#[tokio::test]
async fn service_error_is_told_and_its_tasks_are_skipped() {
    let (runner, mut outcomes, log) = (Runner::new(), Outcomes::new(), Log::default());
    let service = runner.layer().layer(service_fn(|request: Request<()>| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        tasks.add_task(log.task("must not run"));
        tasks.add_task(outcomes.task());
        ready(Err::<Response<Empty<&[u8]>>, _>("no database"))
    }));
    assert_eq!(service.oneshot(get("/")).await.unwrap_err(), "no database");
    let outcome = outcomes.only(&runner).await;
    assert_eq!(
        (outcome.end, outcome.status),
        (ResponseEnd::ServiceFailed, None)
    );
    assert!(log.lines().is_empty());
    assert_eq!(runner.stats().skipped, 1);
}

#[tokio::test]
async fn request_dropped_in_the_handler_is_told_and_skips_tasks() {
    let (runner, mut outcomes, log) = (Runner::new(), Outcomes::new(), Log::default());
    let service = runner.layer().layer(service_fn(|request: Request<()>| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        tasks.add_task(log.task("must not run"));
        tasks.add_task(outcomes.task());
        pending::<Result<Response<Empty<&[u8]>>, Infallible>>()
    }));
    assert!(service.oneshot(get("/")).now_or_never().is_none());
    let outcome = outcomes.only(&runner).await;
    assert_eq!(
        (outcome.end, outcome.status),
        (ResponseEnd::Cancelled, None)
    );
    assert!(log.lines().is_empty());
    assert_eq!(runner.stats().skipped, 1);
}

/// The panic unwinds through the holder of the future; or it is caught at the poll and the future dropped later, as tower-http's `CatchPanicLayer` does outside of this layer.
async fn outcome_of_a_panicking_handler(unwinds_to_the_drop: bool) -> ResponseOutcome {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let service = runner.layer().layer(service_fn(|request: Request<()>| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        tasks.add_task(outcomes.task());
        async {
            panic!("on purpose: a handler that panics")
                as Result<Response<Empty<&[u8]>>, Infallible>
        }
    }));
    let mut cx = Context::from_waker(Waker::noop());
    if unwinds_to_the_drop {
        let poll = || pin!(service.oneshot(get("/"))).poll(&mut cx).is_ready();
        assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
    } else {
        let mut future = Box::pin(service.oneshot(get("/")));
        let poll = || future.as_mut().poll(&mut cx).is_ready();
        assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
        drop(future);
    }
    outcomes.only(&runner).await
}

#[tokio::test]
async fn a_panicking_handler_is_told_while_unwinding_and_afterwards() {
    for unwinds_to_the_drop in [true, false] {
        let outcome = outcome_of_a_panicking_handler(unwinds_to_the_drop).await;
        assert_eq!((outcome.end, outcome.status), (ResponseEnd::Panicked, None));
    }
}

#[tokio::test]
async fn service_panic_before_there_is_a_future_is_told() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let mut service = runner.layer().layer(service_fn(|request: Request<()>| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        tasks.add_task(outcomes.task());
        if true {
            panic!("on purpose: a service that panics");
        }
        ready(Ok::<Response<Empty<&[u8]>>, Infallible>(Response::default()))
    }));
    assert!(catch_unwind(AssertUnwindSafe(|| service.call(get("/")))).is_err());
    drop(service);
    let outcome = outcomes.only(&runner).await;
    assert_eq!((outcome.end, outcome.status), (ResponseEnd::Panicked, None));
}

#[tokio::test]
async fn panicking_body_is_told_and_its_tasks_run() {
    let (runner, mut outcomes, log) = (Runner::new(), Outcomes::new(), Log::default());
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(log.task("runs"));
        tasks.add_task(outcomes.task());
        Response::new(ScriptedBody::new([DATA, Step::Panic]))
    })
    .await;
    let mut body = response.into_body();
    body.frame().await;
    let poll = || body.frame().now_or_never().is_some();
    assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
    drop(body);
    let outcome = outcomes.only(&runner).await;
    assert_eq!(outcome.end, ResponseEnd::Panicked);
    assert_eq!(outcome.status, Some(StatusCode::OK));
    assert_eq!(log.lines(), ["runs"]);
}

#[tokio::test(start_paused = true)]
async fn elapsed_is_from_the_request_to_the_bodys_end() {
    use std::time::Duration;
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let service = runner.layer().layer(service_fn(|request: Request<()>| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        tasks.add_task(outcomes.task());
        async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, Infallible>(Response::new(Full::new(&b"hello"[..])))
        }
    }));
    let response = service.oneshot(get("/")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(response);
    assert_eq!(outcomes.only(&runner).await.elapsed, Duration::from_secs(5));
}

#[tokio::test]
async fn by_default_tasks_run_whatever_the_status_and_end() {
    let (runner, log) = (Runner::new(), Log::default());
    for (status, body) in [
        (500, vec![DATA]),
        (404, vec![]),
        (200, vec![DATA, Step::Error]),
    ] {
        let response = respond(&runner, get("/"), |tasks| {
            tasks.add_task(log.task(status.to_string()));
            let body = ScriptedBody::new(body.clone());
            Response::builder().status(status).body(body).unwrap()
        })
        .await;
        let _ = response.into_body().collect().await as Result<_, BoxError>;
        soon(runner.idle()).await;
    }
    assert_eq!(log.lines(), ["500", "404", "200"]);
}

#[tokio::test]
async fn success_is_the_status_complete_is_the_end() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    for (status, is_read, expected) in [
        (201, true, (true, true)),
        (201, false, (true, false)), // the client left, and the order stands
        (303, false, (true, false)),
        (404, true, (false, true)),
        (500, false, (false, false)),
    ] {
        let response = respond(&runner, get("/"), |tasks| {
            tasks.add_task(outcomes.task());
            let body = ScriptedBody::new(vec![DATA, DATA]);
            Response::builder().status(status).body(body).unwrap()
        })
        .await;
        if is_read {
            response.into_body().collect().await.unwrap();
        } else {
            drop(response);
        }
        let outcome = outcomes.only(&runner).await;
        let seen = (outcome.is_success(), outcome.is_complete());
        assert_eq!(seen, expected, "{status}, read: {is_read}");
    }
}

#[tokio::test]
async fn run_if_decides_for_its_own_task() {
    let (runner, log) = (Runner::new(), Log::default());
    for status in [200, 399, 400, 500] {
        let response = respond(&runner, get("/"), |tasks| {
            let task = tower_background_tasks::Task::new(log.task(status.to_string()));
            tasks.add_task(task.run_if(ResponseOutcome::is_success));
            Response::builder()
                .status(status)
                .body(Full::new(&b""[..]))
                .unwrap()
        })
        .await;
        drop(response);
        soon(runner.idle()).await;
    }
    assert_eq!(log.lines(), ["200", "399"]);
    assert_eq!((runner.stats().completed, runner.stats().skipped), (2, 2));
}

fn over_http_2() -> Request<()> {
    let mut request = get("/");
    *request.version_mut() = Version::HTTP_2;
    request
}

/// A gRPC call over HTTP/2 whose body is read for `frames` frames.
async fn outcome_of_call(steps: &[Step], frames: usize) -> ResponseOutcome {
    let head = ok().header("content-type", "application/grpc");
    let body = ScriptedBody::new(steps.iter().cloned());
    outcome_of(over_http_2(), head, body, frames).await
}

#[tokio::test]
async fn a_call_succeeds_by_the_status_in_its_trailers() {
    for (code, number, is_success) in [("0", 0, true), ("13", 13, false), ("?", 2, false)] {
        let outcome = outcome_of_call(&[DATA, Step::GrpcStatus(code)], 2).await;
        assert_eq!(outcome.end, ResponseEnd::Completed);
        assert_eq!(outcome.grpc_status, Some(number));
        assert_eq!(outcome.is_success(), is_success);
    }
}

#[tokio::test]
async fn a_call_that_ends_without_a_status_is_unknown() {
    for (steps, frames) in [
        (&[DATA, DATA][..], 1),
        (&[DATA], 2),
        (&[DATA, Step::Trailers], 2),
        (&[Step::Error], 1),
    ] {
        let outcome = outcome_of_call(steps, frames).await;
        assert_eq!(outcome.grpc_status, Some(2));
        assert!(outcome.is_responded() && !outcome.is_success());
    }
}

#[tokio::test]
async fn a_call_whose_length_is_known_needs_its_status_all_the_same() {
    let head = ok().header("content-type", "application/grpc");
    let mut body = ScriptedBody::new([DATA, Step::GrpcStatus("0")]);
    body.size_hint = SizeHint::with_exact(5);
    let outcome = outcome_of(over_http_2(), head, body, 1).await; // its client leaves there
    assert_eq!(
        (outcome.grpc_status, outcome.is_success()),
        (Some(2), false)
    );
}

#[tokio::test]
async fn a_call_without_a_body_has_its_status_in_the_head() {
    let head = ok()
        .header("content-type", "application/grpc")
        .header("grpc-status", "12");
    let mut body = ScriptedBody::new([]);
    body.knows_its_end = true;
    let outcome = outcome_of(over_http_2(), head, body, 0).await;
    assert_eq!(outcome.grpc_status, Some(12));
    assert!(outcome.is_complete() && !outcome.is_success());
}

#[tokio::test]
async fn other_responses_have_no_grpc_status() {
    for content_type in ["application/grpc-web", "text/plain"] {
        let head = ok().header("content-type", content_type);
        let outcome = outcome_of(over_http_2(), head, ScriptedBody::new([DATA]), 1).await;
        assert_eq!(outcome.grpc_status, None);
        assert!(outcome.is_success());
    }
}
