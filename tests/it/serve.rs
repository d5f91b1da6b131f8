//! One plan for server, requests and tasks to end.

use std::{
    convert::Infallible,
    future::{Future, IntoFuture, pending, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_background_tasks::{BackgroundTasks, ResponseEnd, Runner, ShutdownSignal, Task, TaskEnd};

use crate::support::{
    Outcomes, PanicsWhenDropped, ScriptedBody, Step, full, get, read_all, respond, soon, turns,
};

const SECOND: Duration = Duration::from_secs(1);

/// A server that ends as soon as it is told to.
async fn server(shutdown: ShutdownSignal) -> Result<(), Infallible> {
    shutdown.await;
    Ok(())
}

/// A server that never ends.
async fn stubborn(_shutdown: ShutdownSignal) -> Result<(), Infallible> {
    pending().await
}

#[tokio::test(start_paused = true)]
async fn everything_that_ends_in_time_is_waited_for() {
    let runner = Runner::new();
    let begun = Instant::now();
    runner.add_task(Task::with_context(async |cx| {
        cx.shutting_down().await;
        sleep(2 * SECOND).await;
    }));
    let serving = runner.serve_until(sleep(SECOND), async |shutdown: ShutdownSignal| {
        shutdown.await;
        sleep(3 * SECOND).await;
        Ok::<_, Infallible>(())
    });
    assert!(runner.is_ready() && !runner.is_shutting_down());
    let report = serving.await.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.to_string(), "all background tasks ended");
    assert_eq!(begun.elapsed().as_secs(), 4);
    assert_eq!(runner.stats().completed, 1);
    assert!(!runner.is_ready() && runner.is_shutting_down());
}

#[tokio::test(start_paused = true)]
async fn the_server_goes_on_while_it_is_not_ready() {
    let (runner, begun) = (Runner::new(), Instant::now());
    let seen = runner.clone();
    let serving = runner
        .serve_until(sleep(SECOND), async move |shutdown: ShutdownSignal| {
            while seen.is_ready() {
                sleep(SECOND / 100).await;
            }
            assert_eq!(begun.elapsed().as_secs(), 1);
            assert!(!seen.is_shutting_down(), "tasks are not told yet");
            shutdown.await;
            assert_eq!(begun.elapsed().as_secs(), 6);
            seen.shutting_down().now_or_never().unwrap();
            Ok::<_, Infallible>(())
        })
        .unready_for(5 * SECOND);
    assert!(serving.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn an_open_response_is_cut_off_and_its_task_told() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let (stop, signal) = oneshot::channel::<()>();
    let serving = runner
        .serve_until(signal.map(drop), stubborn)
        .requests(3 * SECOND);
    let response = respond(&runner, get("/events"), |tasks| {
        tasks.add_task(outcomes.task());
        let body = ScriptedBody::new([Step::Data(b"hello"), Step::Data(b"more")]);
        Response::new(body)
    });
    let mut body = response.await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let begun = Instant::now();
    drop(stop);
    let report = serving.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
    let outcome = outcomes.only(&runner).await;
    assert_eq!((outcome.end, outcome.body_bytes), (ResponseEnd::Aborted, 5));
    assert_eq!(outcome.status, Some(StatusCode::OK));
    let cut_off = &report.requests()[0];
    assert_eq!(cut_off.request().unwrap().path(), Some("/events"));
    assert_eq!(cut_off.status(), Some(StatusCode::OK));
    assert!(report.unfinished().is_empty() && !report.is_clean());
    let text = report.to_string();
    assert!(
        text.contains("1 request cut off:\n  GET /events: its response (200 OK) open after"),
        "{text}"
    );
    assert!(body.frame().now_or_never().is_none(), "it is not polled");
    drop(body);
    soon(runner.idle()).await;
    assert_eq!(runner.stats().added, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_without_an_answer_is_cut_off_and_named() {
    let (runner, polls) = (Runner::new(), Arc::new(AtomicUsize::new(0)));
    let (stop, signal) = oneshot::channel::<()>();
    let serving = runner.serve_until(signal.map(drop), stubborn);
    let polled = Arc::clone(&polls);
    let mut service = runner
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            let polled = Arc::clone(&polled);
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            tasks.add_task(async {});
            std::future::poll_fn(move |_| {
                polled.fetch_add(1, Ordering::SeqCst);
                std::task::Poll::<Result<Response<String>, Infallible>>::Pending
            })
        }));
    let mut handler = Box::pin(service.call(get("/slow")));
    assert!(handler.as_mut().now_or_never().is_none());
    drop(stop);
    let report = serving.await.unwrap();
    assert_eq!(report.requests()[0].status(), None);
    let text = report.requests()[0].to_string();
    assert!(text.starts_with("GET /slow: no response after"), "{text}");
    assert_eq!((runner.stats().skipped, runner.stats().added), (1, 1));
    assert!(handler.as_mut().now_or_never().is_none());
    assert_eq!(polls.load(Ordering::SeqCst), 1, "it is not polled again");
}

#[tokio::test(start_paused = true)]
async fn requests_that_the_server_leaves_open_are_waited_for() {
    let runner = Runner::new();
    let (stop, signal) = oneshot::channel::<()>();
    let serving = runner.serve_until(signal.map(drop), server);
    let begun = Instant::now();
    let response = respond(&runner, get("/"), |_| full("hello")).await;
    drop(stop);
    let reading = async {
        sleep(4 * SECOND).await;
        read_all(response).await
    };
    let (report, _) = tokio::join!(serving.into_future(), reading);
    assert!(report.unwrap().is_clean());
    assert_eq!(begun.elapsed().as_secs(), 4);
    assert!(runner.tasks().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tasks_have_their_time_after_the_requests() {
    let (runner, begun) = (Runner::new(), Instant::now());
    runner.add_task(Task::new(pending::<()>()).named("stuck"));
    let serving = runner.serve_until(ready(()), stubborn);
    let report = serving.requests(2 * SECOND).tasks(3 * SECOND).await;
    assert_eq!(report.unwrap().unfinished()[0].name(), "stuck");
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(runner.stats().aborted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_servers_error_comes_once_its_tasks_have_ended() {
    let runner = Runner::new();
    let adding = runner.clone();
    let serving = runner.serve_until(pending(), async move |_: ShutdownSignal| {
        adding.add_task(sleep(SECOND));
        Err::<(), _>("no port")
    });
    assert_eq!(serving.await.unwrap_err(), "no port");
    assert_eq!(runner.stats().completed, 1);
    assert!(runner.try_add_task(async {}).is_err(), "it has shut down");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_from_elsewhere_ends_the_wait_for_tasks() {
    let (runner, begun) = (Runner::new(), Instant::now());
    runner.add_task(Task::new(pending::<()>()).named("stuck"));
    let serving = runner.serve_until(ready(()), server);
    let elsewhere = runner.clone();
    let hurry = async move {
        sleep(SECOND).await;
        elsewhere.shutdown(Duration::ZERO).await
    };
    let (report, other) = tokio::join!(serving.into_future(), hurry);
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(report.unwrap().unfinished().len(), 1);
    assert_eq!(other.unfinished().len(), 1);
}

#[tokio::test]
async fn each_end_is_told_once_though_a_body_ends_as_it_is_cut_off() {
    let runner = Runner::builder()
        .on_task_end(|report| assert!(matches!(report.end(), TaskEnd::Completed)))
        .build();
    let (stop, signal) = oneshot::channel::<()>();
    let serving = runner
        .serve_until(signal.map(drop), server)
        .requests(Duration::ZERO);
    let serving = tokio::spawn(serving.into_future());
    turns(2).await;
    let mut responses = Vec::new();
    for _ in 0..100 {
        let response = respond(&runner, get("/"), |tasks| {
            tasks.add_task(async {});
            full("hello")
        });
        responses.push(response.await);
    }
    let dropping = std::thread::spawn(move || drop(responses));
    drop(stop);
    let report = soon(serving).await.unwrap().unwrap();
    dropping.join().unwrap();
    assert!(report.unfinished().is_empty());
    assert_eq!(runner.stats().completed, 100);
    assert!(runner.tasks().is_empty());
}

/// Without a plan nobody follows requests.
#[tokio::test]
async fn a_shutdown_by_hand_cuts_no_request_off() {
    let runner = Runner::new();
    let response = respond(&runner, get("/"), |_| full("hello")).await;
    let report = runner.shutdown(Duration::ZERO).await;
    assert!(report.is_clean() && report.requests().is_empty());
    assert_eq!(read_all(response).await, "hello");
}

fn _serve_is_send(runner: &Runner) -> impl Future + Send {
    runner.serve_until(pending(), server).into_future()
}

/// Panics when it is dropped.
struct PanicsAtTheEnd(PanicsWhenDropped);

impl Future for PanicsAtTheEnd {
    type Output = Result<(), Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_destructor_that_panics_is_resumed_after_the_tasks() {
    let runner = Runner::new();
    runner.add_task(sleep(2 * SECOND));
    let serving = runner.serve_until(pending(), |_| PanicsAtTheEnd(PanicsWhenDropped));
    let ended = tokio::spawn(serving.into_future()).await;
    assert!(ended.unwrap_err().is_panic());
    assert_eq!(runner.stats().completed, 1);
    assert!(runner.try_add_task(async {}).is_err(), "it has shut down");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_panics_as_it_is_dropped_late_is_resumed_after_the_tasks() {
    let runner = Runner::new();
    runner.add_task(sleep(15 * SECOND));
    let serving = runner.serve_until(ready(()), async |_| {
        let _dropped_at_the_deadline = PanicsWhenDropped;
        pending::<Result<(), Infallible>>().await
    });
    let ended = tokio::spawn(serving.into_future()).await;
    assert!(ended.unwrap_err().is_panic());
    assert_eq!(runner.stats().completed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_signal_after_the_server_has_ended_is_the_first() {
    let (runner, begun) = (Runner::new(), Instant::now());
    runner.add_task(sleep(3 * SECOND));
    let ends = async |_: ShutdownSignal| Ok::<_, Infallible>(());
    let report = runner.serve_until(sleep(SECOND), ends).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_stop_is_told_of() {
    let runner = Runner::new();
    let report = runner.serve_until(ready(()), stubborn).await.unwrap();
    assert!(!report.server_stopped() && report.is_clean());
    let text = report.to_string();
    assert!(
        text.starts_with("the server did not stop in time"),
        "{text}"
    );
    let stops = Runner::new().serve_until(ready(()), server);
    assert!(stops.await.unwrap().server_stopped());
    assert!(Runner::new().shutdown(SECOND).await.server_stopped());
}

/// Over real time, as the answer is sent by another thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_handlers_answer_is_not_cut_off_as_its_time_ends() {
    for _ in 0..20 {
        let runner = Runner::new();
        let (stop, signal) = oneshot::channel::<()>();
        let serving = runner
            .serve_until(signal.map(drop), server)
            .requests(SECOND / 100);
        let serving = tokio::spawn(serving.into_future());
        let mut clients = Vec::new();
        for _ in 0..10 {
            let pay = service_fn(async |_: Request<()>| {
                sleep(SECOND / 20).await;
                Ok::<_, Infallible>(full("paid"))
            });
            let app = runner.layer().detached().layer(pay);
            clients.push(tokio::spawn(async move {
                read_all(app.oneshot(get("/pay")).await.unwrap()).await
            }));
        }
        sleep(SECOND / 50).await;
        drop(stop);
        let report = serving.await.unwrap().unwrap();
        assert!(report.is_clean(), "{report}");
        for client in clients {
            assert_eq!(soon(client).await.unwrap(), "paid");
        }
    }
}
