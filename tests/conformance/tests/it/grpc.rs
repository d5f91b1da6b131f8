//! gRPC: tonic with the health service, through `from_extensions`.

use std::{convert::Infallible, future::pending, time::Duration};

use http::Request;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tonic::{
    Code,
    body::Body,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::{HealthReporter, health_reporter},
};
use tower::util::{MapFutureLayer, MapRequestLayer};
use tower_background_tasks::{
    BackgroundTasks,
    ResponseEnd::{Aborted, Cancelled, Completed},
    ResponseOutcome, Runner, Task,
};

use crate::support::soon;

const SERVICE: &str = "the.Service";

/// What middleware does: finds the request's queue and adds a task.
fn adds_a_task(
    outcomes: UnboundedSender<ResponseOutcome>,
) -> impl Fn(Request<Body>) -> Request<Body> + Clone {
    move |request| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        let outcomes = outcomes.clone();
        tasks.add_task(
            Task::with_context(|cx| async move {
                let _ = outcomes.send(cx.response().unwrap().clone());
            })
            .run_if(|_| true),
        );
        request
    }
}

async fn health_server(
    runner: &Runner,
    outcomes: UnboundedSender<ResponseOutcome>,
) -> (HealthClient<Channel>, HealthReporter, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, service) = health_reporter();
    reporter
        .set_service_status(SERVICE, ServingStatus::Serving)
        .await;
    let server = Server::builder()
        .layer(runner.layer())
        .layer(MapRequestLayer::new(adds_a_task(outcomes)))
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener));
    let serving = tokio::spawn(async { server.await.unwrap() });
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let client = HealthClient::new(channel);
    (client, reporter, serving)
}

/// Calls the server once, and gives the one outcome there was.
async fn outcome_of(
    call: impl AsyncFnOnce(HealthClient<Channel>, HealthReporter),
) -> ResponseOutcome {
    let runner = Runner::new();
    let (sender, mut outcomes) = unbounded_channel();
    let (client, reporter, serving) = health_server(&runner, sender).await;
    call(client, reporter).await;
    let outcome = soon(outcomes.recv()).await.unwrap();
    soon(runner.idle()).await;
    assert!(outcomes.try_recv().is_err(), "fired twice");
    assert_eq!((runner.stats().added, runner.stats().completed), (1, 1));
    serving.abort();
    outcome
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

#[tokio::test]
async fn a_unary_call_completes_and_its_trailers_arrive() {
    let outcome = outcome_of(async |mut client, _reporter| {
        let answer = client.check(check(SERVICE)).await.unwrap();
        assert_eq!(answer.metadata().get("grpc-status").unwrap(), "0");
        assert_eq!(answer.into_inner().status, ServingStatus::Serving as i32);
    })
    .await;
    assert_eq!((outcome.end, outcome.grpc_status), (Completed, Some(0)));
    assert!(outcome.is_success() && outcome.body_bytes > 0);
}

#[tokio::test]
async fn error_status_completes_with_http_status_200_and_is_no_success() {
    let outcome = outcome_of(async |mut client, _reporter| {
        let status = client.check(check("unknown")).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    })
    .await;
    assert_eq!((outcome.end, outcome.body_bytes), (Completed, 0));
    assert_eq!(outcome.status.unwrap().as_u16(), 200);
    assert_eq!(outcome.grpc_status, Some(Code::NotFound as u32));
    assert!(!outcome.is_success() && outcome.is_complete());
}

#[tokio::test]
async fn a_server_stream_read_to_the_end_completes() {
    let outcome = outcome_of(async |mut client, mut reporter| {
        let mut stream = client.watch(check(SERVICE)).await.unwrap().into_inner();
        assert!(soon(stream.message()).await.unwrap().is_some());
        reporter.clear_service_status(SERVICE).await;
        assert!(soon(stream.message()).await.unwrap().is_none());
        assert!(stream.trailers().await.unwrap().is_some());
    })
    .await;
    assert_eq!(outcome.end, Completed);
}

#[tokio::test]
async fn a_server_stream_left_early_is_aborted() {
    let outcome = outcome_of(async |mut client, _reporter| {
        let mut stream = client.watch(check(SERVICE)).await.unwrap().into_inner();
        assert!(soon(stream.message()).await.unwrap().is_some());
    })
    .await;
    assert_eq!(outcome.end, Aborted);
    assert_eq!(outcome.grpc_status, Some(Code::Unknown as u32));
    assert!(outcome.body_bytes > 0 && !outcome.is_success());
}

type Answer = Result<http::Response<Body>, Infallible>;

/// A service that never answers, behind the layer. tonic keeps timeouts outside of all layers.
async fn outcome_of_a_hanging_call(server: Server, timeout_of_call: Duration) -> ResponseOutcome {
    let runner = Runner::new();
    let (sender, mut outcomes) = unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, service) = health_reporter();
    let mut server = server
        .layer(runner.layer())
        .layer(MapRequestLayer::new(adds_a_task(sender)))
        .layer(MapFutureLayer::new(|_answer| pending::<Answer>()));
    let server = server
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener));
    let serving = tokio::spawn(async { server.await.unwrap() });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let mut request = tonic::Request::new(check(SERVICE));
    request.set_timeout(timeout_of_call);
    soon(client.check(request)).await.unwrap_err();
    let outcome = soon(outcomes.recv()).await.unwrap();
    soon(runner.idle()).await;
    assert!(outcomes.try_recv().is_err(), "fired twice");
    serving.abort();
    outcome
}

#[tokio::test]
async fn a_timeout_of_call_or_server_is_told_as_cancelled() {
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
    for (server, timeout_of_call) in [
        (Server::builder(), short),
        (Server::builder().timeout(short), long),
    ] {
        let outcome = outcome_of_a_hanging_call(server, timeout_of_call).await;
        assert_eq!((outcome.end, outcome.status), (Cancelled, None));
        assert_eq!(outcome.grpc_status, None);
    }
}
