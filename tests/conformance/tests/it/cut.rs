//! Clients that leave while their handler is at an await point, at each of five, over real sockets: what is shielded goes on to its
//! end, once, and so does a whole handler behind the detached layer. Without either, the handler stops where it is.
//!
//! `CUT_ROUNDS=1000 cargo test --package conformance cut -- --nocapture` cuts each point more often than 100 times, which
//! take 3 seconds.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    task::JoinSet,
};
use tonic::{
    codegen::tokio_stream::Empty,
    transport::{self, Channel, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::{Layer, service_fn, util::MapFutureLayer};
use tower_background_tasks::{
    BackgroundTasks, BoxError,
    ResponseEnd::{Aborted, Cancelled},
    ResponseOutcome, Runner, Task,
};

use crate::{
    chaos::number_from_env,
    clients::Http2,
    rows::boxed,
    servers::{Server, ServerKind},
    support::{RawClient, soon},
};

/// Await points of a handler.
const POINTS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// The client closes its connection.
    Http1,
    /// The client resets its stream, and the connection stays.
    Http2,
    /// The client drops its call, and the connection stays.
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guarded {
    /// The control.
    Not,
    Shielded,
    Detached,
}

/// What happens in a visit, as the test hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The work is at this point.
    Reached(usize),
    /// The server has dropped the handler, or waits for it no longer.
    Dropped,
    /// The work is done.
    Done,
}

/// The work of one visit.
struct Work {
    events: UnboundedSender<Event>,
    /// The points before this one are open.
    open: watch::Receiver<usize>,
    outcomes: UnboundedSender<ResponseOutcome>,
}

impl Work {
    async fn run(mut self) {
        for point in 0..POINTS {
            let _ = self.events.send(Event::Reached(point));
            let _ = self.open.wait_for(|open| *open > point).await;
        }
        let _ = self.events.send(Event::Done);
    }

    /// A task that tells the outcome, if there was a response or `always` holds.
    fn task(&self, always: bool) -> Task {
        let outcomes = self.outcomes.clone();
        let task = Task::with_context(|cx| async move {
            let _ = outcomes.send(cx.response().unwrap().clone());
        });
        match always {
            true => task.run_if(|_| true),
            false => task,
        }
    }
}

/// The handler, behind whichever server.
async fn handle(guarded: Guarded, tasks: &BackgroundTasks, work: Work) {
    match guarded {
        Guarded::Not => {
            tasks.add_task(work.task(true));
            work.run().await;
        }
        Guarded::Shielded => {
            tasks.add_task(work.task(true));
            tasks.shield(work.run()).await.unwrap();
        }
        Guarded::Detached => {
            let last = work.task(false);
            work.run().await;
            tasks.add_task(last);
        }
    }
}

/// Where the server finds the visit that is under way: one after another.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Option<OnDesk>>>);

struct OnDesk {
    events: UnboundedSender<Event>,
    work: Option<Work>,
}

impl Desk {
    fn put(&self, work: Work) {
        let events = work.events.clone();
        let work = Some(work);
        *self.0.lock().unwrap() = Some(OnDesk { events, work });
    }

    fn take_work(&self) -> Work {
        let mut desk = self.0.lock().unwrap();
        let work = desk.as_mut().and_then(|desk| desk.work.take());
        work.expect("one visit at a time")
    }

    fn events(&self) -> UnboundedSender<Event> {
        let desk = self.0.lock().unwrap();
        desk.as_ref().expect("a visit").events.clone()
    }
}

struct TellsWhenDropped(UnboundedSender<Event>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Dropped);
    }
}

/// Awaits what the server awaits, and tells when the server drops it.
async fn watched<F: Future>(desk: Desk, future: F) -> F::Output {
    let _tells = TellsWhenDropped(desk.events());
    future.await
}

/// A server, and its client.
struct Site {
    runner: Runner,
    desk: Desk,
    client: Client,
    _server: Serving,
}

/// A server, until this is dropped.
type Serving = Box<dyn Send>;

impl Site {
    async fn open(protocol: Protocol, guarded: Guarded) -> Self {
        let (runner, desk) = (Runner::new(), Desk::default());
        let (client, server) = match protocol {
            Protocol::Http1 | Protocol::Http2 => http(protocol, guarded, &runner, &desk).await,
            Protocol::Grpc => grpc(guarded, &runner, &desk).await,
        };
        Self {
            runner,
            desk,
            client,
            _server: server,
        }
    }
}

async fn http(
    protocol: Protocol,
    guarded: Guarded,
    runner: &Runner,
    desk: &Desk,
) -> (Client, Serving) {
    let at_desk = desk.clone();
    let handler = service_fn(move |request: Request<Body>| {
        let work = at_desk.take_work();
        async move {
            let tasks = BackgroundTasks::from_extensions(request.extensions())?;
            handle(guarded, &tasks, work).await;
            let mut response = Response::new(Body::from("ordered"));
            *response.status_mut() = StatusCode::CREATED;
            Ok::<_, BoxError>(response)
        }
    });
    let layer = runner.layer();
    let service = match guarded {
        Guarded::Detached => {
            let watch = watching(desk);
            boxed(MapFutureLayer::new(watch).layer(layer.detached().layer(handler)))
        }
        Guarded::Not | Guarded::Shielded => {
            let watch = watching(desk);
            boxed(MapFutureLayer::new(watch).layer(layer.layer(handler)))
        }
    };
    let server = Server::start(ServerKind::AxumServe, service).await;
    let client = match protocol {
        Protocol::Http2 => Client::Http2(Http2::connect(server.address).await, server.address),
        _ => Client::Http1(server.address),
    };
    (client, Box::new(server))
}

fn watching<F: Future + Send + 'static>(
    desk: &Desk,
) -> impl Fn(F) -> BoxFuture<'static, F::Output> + Clone + Send + Sync + 'static {
    let desk = desk.clone();
    move |future| Box::pin(watched(desk.clone(), future))
}

struct Orders {
    guarded: Guarded,
    desk: Desk,
}

#[tonic::async_trait]
impl Health for Orders {
    type WatchStream = Empty<Result<HealthCheckResponse, tonic::Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        let tasks = BackgroundTasks::from_extensions(request.extensions());
        let tasks = tasks.map_err(|error| tonic::Status::internal(error.to_string()))?;
        handle(self.guarded, &tasks, self.desk.take_work()).await;
        Ok(tonic::Response::new(HealthCheckResponse::default()))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("no stream here"))
    }
}

async fn grpc(guarded: Guarded, runner: &Runner, desk: &Desk) -> (Client, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (incoming, desk, layer) = (TcpIncoming::from(listener), desk.clone(), runner.layer());
    let orders = HealthServer::new(Orders {
        guarded,
        desk: desk.clone(),
    });
    let mut serving = JoinSet::new(); // which aborts what it has when it is dropped
    match guarded {
        Guarded::Detached => {
            let mut server = transport::Server::builder()
                .layer(MapFutureLayer::new(watching(&desk)))
                .layer(layer.detached());
            let server = server.add_service(orders).serve_with_incoming(incoming);
            serving.spawn(async { server.await.unwrap() });
        }
        Guarded::Not | Guarded::Shielded => {
            let mut server = transport::Server::builder()
                .layer(MapFutureLayer::new(watching(&desk)))
                .layer(layer);
            let server = server.add_service(orders).serve_with_incoming(incoming);
            serving.spawn(async { server.await.unwrap() });
        }
    }
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let channel = soon(channel.connect()).await.unwrap();
    (Client::Grpc(HealthClient::new(channel)), Box::new(serving))
}

enum Client {
    Http1(SocketAddr),
    Http2(Http2, SocketAddr),
    Grpc(HealthClient<Channel>),
}

impl Client {
    /// Sends a request, and leaves when the handler is `there`.
    async fn leave(&mut self, there: impl Future<Output = ()>) {
        match self {
            Self::Http1(address) => {
                let mut connection = RawClient(TcpStream::connect(*address).await.unwrap());
                let request = "POST /order HTTP/1.1\r\nhost: here\r\ncontent-length: 0\r\n\r\n";
                connection.send(request).await;
                there.await;
            }
            Self::Http2(connection, address) => {
                let request = Request::post(format!("http://{address}/order"));
                let response = connection.send(request.body(Full::default()).unwrap());
                tokio::select! {
                    _ = response => panic!("it was answered"),
                    () = there => {}
                }
            }
            Self::Grpc(client) => {
                let call = client.check(HealthCheckRequest::default());
                tokio::select! {
                    _ = call => panic!("it was answered"),
                    () = there => {}
                }
            }
        }
    }
}

/// Collects events up to one.
async fn until(events: &mut UnboundedReceiver<Event>, seen: &mut Vec<Event>, wanted: Event) {
    while seen.last() != Some(&wanted) {
        seen.push(soon(events.recv()).await.unwrap());
    }
}

impl Site {
    /// A visit whose client leaves while the work is at `point`. Gives what happened, and the outcome.
    async fn cut(&mut self, point: usize) -> (Vec<Event>, ResponseOutcome) {
        let (sender, mut events) = unbounded_channel();
        let (opens, open) = watch::channel(point);
        let (outcome, mut outcomes) = unbounded_channel();
        self.desk.put(Work {
            events: sender,
            open,
            outcomes: outcome,
        });
        let mut seen = Vec::new();
        let there = until(&mut events, &mut seen, Event::Reached(point));
        self.client.leave(there).await;
        until(&mut events, &mut seen, Event::Dropped).await;
        opens.send_replace(POINTS);
        soon(opens.closed()).await; // the work is done, or dropped
        soon(self.runner.idle()).await;
        seen.extend(std::iter::from_fn(|| events.try_recv().ok()));
        let outcome = outcomes.try_recv().expect("a task has told the outcome");
        assert!(outcomes.try_recv().is_err(), "told twice");
        (seen, outcome)
    }
}

/// What the docs say of a visit that was cut at `point`.
fn check(protocol: Protocol, guarded: Guarded, point: usize, seen: &[Event]) {
    let last = match guarded {
        Guarded::Not => point,
        Guarded::Shielded | Guarded::Detached => POINTS - 1,
    };
    let reached = |points: std::ops::RangeInclusive<usize>| points.map(Event::Reached);
    let mut expected: Vec<_> = reached(0..=point).collect();
    expected.push(Event::Dropped);
    expected.extend(reached(point + 1..=last));
    if guarded != Guarded::Not {
        expected.push(Event::Done);
    }
    assert_eq!(seen, expected, "{protocol:?} {guarded:?}, at {point}");
}

fn check_outcome(protocol: Protocol, guarded: Guarded, outcome: &ResponseOutcome) {
    let (end, status, grpc_status) = match (guarded, protocol) {
        (Guarded::Not | Guarded::Shielded, _) => (Cancelled, None, None),
        // Its client left before the status in the trailers.
        (Guarded::Detached, Protocol::Grpc) => (Aborted, Some(StatusCode::OK), Some(2)),
        (Guarded::Detached, _) => (Aborted, Some(StatusCode::CREATED), None),
    };
    let told = (outcome.end, outcome.status, outcome.grpc_status);
    assert_eq!(told, (end, status, grpc_status), "{protocol:?} {guarded:?}");
    let is_success = guarded == Guarded::Detached && protocol != Protocol::Grpc;
    assert_eq!(outcome.is_success(), is_success);
}

/// How often the work was done, by the point at which it was cut.
async fn cut_all(protocol: Protocol, guarded: Guarded, rounds: u64) -> [u64; POINTS] {
    let mut site = Site::open(protocol, guarded).await;
    let mut done = [0; POINTS];
    for _ in 0..rounds {
        for (point, done) in done.iter_mut().enumerate() {
            let (seen, outcome) = site.cut(point).await;
            check(protocol, guarded, point, &seen);
            check_outcome(protocol, guarded, &outcome);
            *done += seen.iter().filter(|event| **event == Event::Done).count() as u64;
        }
    }
    check_books(&site.runner, guarded, rounds * POINTS as u64).await;
    done
}

async fn check_books(runner: &Runner, guarded: Guarded, visits: u64) {
    let of_a_visit = match guarded {
        Guarded::Not => 1,
        Guarded::Shielded | Guarded::Detached => 2, // the work, or the handler, is a task too
    };
    let (stats, tasks) = (runner.stats(), visits * of_a_visit);
    assert_eq!((stats.added, stats.completed), (tasks, tasks), "{stats:?}");
    let unended = (stats.awaiting_response, stats.pending, stats.running);
    assert_eq!(unended, (0, 0, 0));
    assert!(runner.tasks().is_empty());
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
}

async fn cut_over(protocol: Protocol) {
    let (begun, rounds) = (Instant::now(), number_from_env("CUT_ROUNDS", 100));
    for (guarded, expected) in [
        (Guarded::Not, 0),
        (Guarded::Shielded, rounds),
        (Guarded::Detached, rounds),
    ] {
        let done = cut_all(protocol, guarded, rounds).await;
        println!("cut: {protocol:?} {guarded:?}: {rounds} visits cut at each point, done {done:?}");
        assert_eq!(done, [expected; POINTS]);
    }
    println!("cut: {protocol:?}: {:.1?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarded_work_goes_on_when_an_http1_client_closes() {
    cut_over(Protocol::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarded_work_goes_on_when_an_http2_stream_is_reset() {
    cut_over(Protocol::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarded_work_goes_on_when_a_grpc_call_is_dropped() {
    cut_over(Protocol::Grpc).await;
}
