//! Requests that a plan cuts off: nothing more of them passes, what they hold goes, and all are named.

use std::{
    convert::Infallible,
    future::{Future, IntoFuture, pending},
    pin::Pin,
    sync::{Mutex, mpsc},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_background_tasks::{
    BackgroundTasks, KeepOpen, ResponseEnd, Runner, Serve, ShutdownReport, ShutdownSignal,
};

use crate::support::{
    Log, Outcomes, ScriptedBody, Step, full, get, read_all, respond, soon, turns,
};

const SECOND: Duration = Duration::from_secs(1);

/// A server that ends as soon as it is told to: its connections go on, as those of axum do.
async fn server(shutdown: ShutdownSignal) -> Result<(), Infallible> {
    shutdown.await;
    Ok(())
}

/// A second for requests and ten for tasks, from when what this returns is dropped.
fn plan<S>(
    runner: &Runner,
    server: impl FnOnce(ShutdownSignal) -> S,
) -> (oneshot::Sender<()>, Serve<S>) {
    let (stop, signal) = oneshot::channel::<()>();
    let serving = runner.serve_until(signal.map(drop), server);
    (stop, serving.requests(SECOND).tasks(10 * SECOND))
}

/// Stops the server, and returns its report and how many seconds that took.
async fn stopped<S>(stop: oneshot::Sender<()>, serving: Serve<S>) -> (ShutdownReport, u64)
where
    Serve<S>: IntoFuture<Output = Result<ShutdownReport, Infallible>>,
{
    let begun = Instant::now();
    drop(stop);
    let report = serving.await.unwrap();
    (report, begun.elapsed().as_secs())
}

fn tasks_of(request: &Request<()>) -> BackgroundTasks {
    BackgroundTasks::from_extensions(request.extensions()).unwrap()
}

/// A client of a handler that does `work` and then never answers.
fn stuck<F: Future<Output = ()> + Send + 'static>(
    runner: &Runner,
    mut work: impl FnMut(BackgroundTasks) -> F + Clone + Send + 'static,
) -> JoinHandle<()> {
    let app = runner
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            let work = work(tasks_of(&request));
            async move {
                work.await;
                pending::<()>().await;
                Ok::<_, Infallible>(full("never"))
            }
        }));
    tokio::spawn(async move { drop(app.oneshot(get("/stuck")).await) })
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_named_though_it_goes_with_its_server() {
    let runner = Runner::new();
    let app = runner.layer().layer(service_fn(async |_: Request<()>| {
        pending::<()>().await;
        Ok::<_, Infallible>(full("never"))
    }));
    let (stop, serving) = plan(&runner, async move |_| {
        drop(app.oneshot(get("/slow")).await);
        Ok::<_, Infallible>(())
    });
    let serving = tokio::spawn(serving.into_future());
    turns(2).await;
    drop(stop);
    let report = serving.await.unwrap().unwrap();
    assert_eq!(report.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_holds_does_not_hold_up_the_tasks() {
    let (runner, log) = (Runner::new(), Log::default());
    let (stop, serving) = plan(&runner, server);
    let line = log.clone();
    let client = stuck(&runner, move |tasks| {
        let (held, log) = (tasks.hold(), line.clone());
        async move {
            held.add_task(log.task("committed"));
            pending::<()>().await; // the commit
            held.release();
        }
    });
    turns(2).await;
    let (report, seconds) = stopped(stop, serving).await;
    assert_eq!((report.requests().len(), seconds), (1, 1));
    assert_eq!((runner.stats().skipped, log.lines().len()), (1, 0));
    client.abort();
}

/// A body that never gives anything, and holds a connection.
struct Stream(#[expect(dead_code, reason = "held")] KeepOpen);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_body_holds_goes_with_it() {
    let runner = Runner::new();
    let (stop, serving) = plan(&runner, server);
    let response = respond(&runner, get("/events"), |tasks| {
        Response::new(Stream(tasks.keep_open()))
    });
    let response = response.await;
    let client = tokio::spawn(read_all(response));
    turns(2).await;
    let (report, seconds) = stopped(stop, serving).await;
    assert_eq!((report.requests().len(), seconds), (1, 1));
    assert_eq!(report.connections().count(), 0, "it is named once");
    client.abort();
}

#[tokio::test(start_paused = true)]
async fn a_detached_handler_goes_on_in_the_time_of_the_tasks() {
    let (runner, log) = (Runner::new(), Log::default());
    let (stop, serving) = plan(&runner, server);
    let line = log.clone();
    let app = runner
        .layer()
        .detached()
        .layer(service_fn(move |request: Request<()>| {
            let line = line.clone();
            async move {
                sleep(3 * SECOND).await;
                tasks_of(&request).add_task(line.task("mail"));
                Ok::<_, Infallible>(full("paid"))
            }
        }));
    let client =
        tokio::spawn(async move { read_all(app.oneshot(get("/pay")).await.unwrap()).await });
    turns(2).await;
    let (report, seconds) = stopped(stop, serving).await;
    assert_eq!((report.is_clean(), seconds), (true, 3), "{report}");
    assert_eq!(log.lines(), ["mail"]);
    assert_eq!(soon(client).await.unwrap(), "paid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_of_a_poll_during_which_it_was_cut_off() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let (stop, serving) = plan(&runner, server);
    let serving = tokio::spawn(serving.requests(Duration::ZERO).into_future());
    let (in_the_poll, is_in_the_poll) = oneshot::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let once = Mutex::new(Some((outcomes.task(), in_the_poll, waits)));
    let app = runner
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            let (task, in_the_poll, waits) = once.lock().unwrap().take().unwrap();
            tasks_of(&request).add_task(task);
            async move {
                let _ = in_the_poll.send(());
                let _ = waits.recv(); // within the poll
                Ok::<_, Infallible>(full("hello"))
            }
        }));
    let answer = async move { timeout(SECOND / 10, app.oneshot(get("/"))).await };
    let client = tokio::spawn(answer);
    is_in_the_poll.await.unwrap();
    drop(stop);
    let report = soon(serving).await.unwrap().unwrap();
    assert_eq!(report.requests().len(), 1);
    drop(go_on);
    assert!(soon(client).await.unwrap().is_err(), "it was answered");
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_no_success() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let (stop, serving) = plan(&runner, server);
    let call = respond(&runner, get("/grpc.Service/Call"), |tasks| {
        tasks.add_task(outcomes.task());
        let head = Response::builder().header("content-type", "application/grpc");
        head.body(ScriptedBody::new([Step::Data(b"hello"), Step::Pending]))
            .unwrap()
    });
    let mut body = call.await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let (report, _) = stopped(stop, serving).await;
    assert_eq!(report.requests().len(), 1);
    let outcome = outcomes.only(&runner).await;
    assert_eq!((outcome.end, outcome.body_bytes), (ResponseEnd::Aborted, 5));
    assert_eq!(
        (outcome.grpc_status, outcome.is_success()),
        (Some(2), false)
    );
    drop(body);
}

/// A server that reads slowly, or not at all, has all of it: the task may count it as complete.
#[tokio::test(start_paused = true)]
async fn a_response_whose_body_was_all_handed_over_completes() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let (stop, serving) = plan(&runner, server);
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(outcomes.task());
        full("hello")
    });
    let mut body = response.await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let (report, _) = stopped(stop, serving).await;
    assert_eq!(report.requests().len(), 1, "its client reads nothing");
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_attached_response_has_its_time_and_is_aborted() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let (stop, serving) = plan(&runner, server);
    let tasks = BackgroundTasks::new();
    tasks.add_task(outcomes.task());
    let response = runner.attach(Response::new(ScriptedBody::new([Step::Pending])), tasks);
    let (report, seconds) = stopped(stop, serving).await;
    assert_eq!(seconds, 1);
    let text = report.requests()[0].to_string();
    assert!(
        text.starts_with("a request: its response (200 OK) open"),
        "{text}"
    );
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Aborted);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_later_is_named_too() {
    let runner = Runner::new();
    runner.add_task(sleep(3 * SECOND));
    let (stop, serving) = plan(&runner, server);
    let serving = tokio::spawn(serving.into_future());
    drop(stop);
    sleep(2 * SECOND).await;
    let client = stuck(&runner, |_| async {});
    let report = serving.await.unwrap().unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.requests().len(), 1);
    client.abort();
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_recording_runner_end() {
    let runner = Runner::recording();
    let (stop, serving) = plan(&runner, server);
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(async {});
        full("hello")
    });
    drop(response.await);
    let (report, seconds) = stopped(stop, serving).await;
    assert_eq!((report.requests().len(), seconds), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_after_the_end_is_not_waited_for() {
    let runner = Runner::new();
    let (stop, serving) = plan(&runner, server);
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
    drop(respond(&runner, get("/"), |_| full("hello")).await);
    let (_, seconds) = stopped(stop, serving).await;
    assert_eq!(seconds, 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_end_before_a_servers_panic_goes_on() {
    let runner = Runner::new();
    runner.add_task(sleep(2 * SECOND));
    let serving = runner.serve_until(pending(), async |_: ShutdownSignal| {
        sleep(SECOND).await;
        panic!("on purpose: a server");
        #[expect(unreachable_code, reason = "its type")]
        Ok::<_, Infallible>(())
    });
    let panic = tokio::spawn(serving.into_future()).await.unwrap_err();
    assert!(panic.is_panic());
    assert_eq!(runner.stats().completed, 1);
}
