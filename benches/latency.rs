//! When does it hurt my clients? What they see of tasks that sleep, block, burn CPU or fail: the
//! median and the 99th percentile of a request's time.
//!
//!     cargo bench --bench latency
//!
//! An axum server on loopback has a runtime of its own with a worker for each core but one. That
//! core is the clients': if they shared it with a worker, the system's placing would double a
//! request's time. Each connection has one request at a time. The side without tasks is a route of
//! the same server, outside of the layer. Each side's tasks have ended before the next side begins.
//! Each figure is the median over the rounds.
//!
//! Tasks that burn CPU take it from all that share the cores, and any task may wake a worker. The
//! same tasks under `tokio::spawn` show what of that is ours.

#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get, serve::ListenerExt};
use common::{is_smoke, median, rounds};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::oneshot,
    time::sleep,
};
use tower_background_tasks::{BackgroundTasks, Runner};

/// The route without tasks first: the others are compared with it.
const SIDES: [(&str, &str); 8] = [
    ("no layer, no tasks", "/bare"),
    ("the layer, no tasks", "/idle"),
    ("async tasks that sleep 5 ms", "/sleep"),
    ("blocking tasks that block 5 ms", "/block"),
    ("async tasks that burn 200 us", "/burn"),
    ("the same under tokio::spawn", "/spawned_burn"),
    ("tasks that fail", "/fail"),
    ("the same under tokio::spawn", "/spawned_fail"),
];

/// How long a task sleeps or blocks.
const LONG: Duration = Duration::from_millis(5);

const CONNECTIONS: usize = 4;

/// Tasks under `tokio::spawn` that have not ended.
static SPAWNED: AtomicUsize = AtomicUsize::new(0);

fn burn() {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(200) {
        black_box(begun);
    }
}

/// `tokio::spawn`, counted while it runs.
fn spawn<T>(task: impl Future<Output = T> + Send + 'static) {
    SPAWNED.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async {
        task.await;
        SPAWNED.fetch_sub(1, Ordering::SeqCst);
    });
}

fn app(runner: &Runner) -> Router {
    let sleep = async |tasks: BackgroundTasks| {
        tasks.add_task(sleep(LONG));
        "hello"
    };
    let block = async |tasks: BackgroundTasks| {
        tasks.add_blocking_task(|| thread::sleep(LONG));
        "hello"
    };
    let ours_burn = async |tasks: BackgroundTasks| {
        tasks.add_task(async { burn() });
        "hello"
    };
    let spawned_burn = async || {
        spawn(async { burn() });
        "hello"
    };
    let fail = async |tasks: BackgroundTasks| {
        tasks.add_task(async { Err::<(), _>("no such address") });
        "hello"
    };
    let spawned_fail = async || {
        spawn(async { Err::<(), _>("no such address") });
        "hello"
    };
    Router::new()
        .route("/idle", get(async || "hello"))
        .route("/sleep", get(sleep))
        .route("/block", get(block))
        .route("/burn", get(ours_burn))
        .route("/fail", get(fail))
        .layer(runner.layer())
        .route("/bare", get(async || "hello"))
        .route("/spawned_burn", get(spawned_burn))
        .route("/spawned_fail", get(spawned_fail))
}

fn workers() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (cores - 1).max(1)
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Server {
    fn start(runner: &Runner) -> Self {
        let app = app(runner);
        let (tell_address, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell_address.send(listener.local_addr().unwrap()).unwrap();
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
            axum::serve(listener, app)
                .with_graceful_shutdown(async { drop(stopped.await) })
                .await
                .unwrap();
        };
        let thread = thread::spawn(move || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(workers())
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve);
        });
        Self {
            address: address.recv().unwrap(),
            stop,
            thread,
        }
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// A connection that is kept.
enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    async fn http1(address: SocketAddr) -> Self {
        let (client, connection) = http1::handshake(connect(address).await).await.unwrap();
        tokio::spawn(connection);
        Self::Http1(client)
    }

    async fn http2(address: SocketAddr) -> Self {
        let stream = connect(address).await;
        let (client, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self::Http2(client)
    }

    async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        match self {
            Self::Http1(client) => {
                client.ready().await.unwrap();
                client.send_request(request).await.unwrap()
            }
            Self::Http2(client) => {
                client.ready().await.unwrap();
                client.send_request(request).await.unwrap()
            }
        }
    }

    /// How long one request takes, until the body has ended.
    async fn request(&mut self, path: &str) -> Duration {
        let request = Request::get(format!("http://localhost{path}"))
            .body(Body::empty())
            .unwrap();
        let begun = Instant::now();
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        black_box(response.into_body().collect().await.unwrap());
        begun.elapsed()
    }
}

async fn connect(address: SocketAddr) -> TokioIo<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    TokioIo::new(stream)
}

/// Microseconds of a side in one round.
#[derive(Clone, Copy)]
struct Latency {
    median: f64,
    p99: f64,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
        Self {
            median: at(50),
            p99: at(99),
        }
    }
}

/// All clients ask at the same time, each one request after the other; then their tasks end.
async fn ask(runner: &Runner, clients: &mut [Client], path: &'static str) -> Latency {
    let requests = if is_smoke() { 20 } else { 150 };
    let asking = clients.iter_mut().map(async |client| {
        let mut times = Vec::with_capacity(requests);
        for _ in 0..requests {
            times.push(client.request(path).await);
        }
        times
    });
    let times = futures_util::future::join_all(asking).await;
    drained(runner).await;
    Latency::of(times.concat())
}

/// Waits until no task is left.
///
/// `Runner::idle` does not wait for a response that its client has, and that has yet to end.
async fn drained(runner: &Runner) {
    loop {
        let stats = runner.stats();
        if stats.awaiting_response + stats.pending + stats.running == 0
            && SPAWNED.load(Ordering::SeqCst) == 0
        {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// The median over the rounds of one figure.
fn over_rounds(rounds: &[[Latency; SIDES.len()]], figure: impl Fn(&[Latency]) -> f64) -> f64 {
    median(rounds.iter().map(|round| figure(round)).collect())
}

async fn protocol(name: &str, runner: &Runner, mut clients: Vec<Client>) {
    for (_, path) in SIDES {
        ask(runner, &mut clients, path).await; // warm up
    }
    let mut figures = Vec::new();
    for round in 0..rounds(25) {
        let mut latencies = [Latency {
            median: 0.0,
            p99: 0.0,
        }; SIDES.len()];
        for turn in 0..SIDES.len() {
            let side = (turn + round) % SIDES.len(); // each goes first in turn
            latencies[side] = ask(runner, &mut clients, SIDES[side].1).await;
        }
        figures.push(latencies);
    }
    println!("{name:<32} median us    ratio      p99 us    ratio");
    for (side, (what, _)) in SIDES.iter().enumerate() {
        let median = over_rounds(&figures, |round| round[side].median);
        let median_ratio = over_rounds(&figures, |round| round[side].median / round[0].median);
        let p99 = over_rounds(&figures, |round| round[side].p99);
        let p99_ratio = over_rounds(&figures, |round| round[side].p99 / round[0].p99);
        println!("{what:<32} {median:>9.1} {median_ratio:>8.2} {p99:>11.1} {p99_ratio:>8.2}");
    }
}

fn main() {
    let runner = Runner::builder().max_blocking(8).build();
    println!("workers: {}, connections: {CONNECTIONS}", workers());
    let server = Server::start(&runner);
    let address = server.address;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut http1 = Vec::new();
        let mut http2 = Vec::new();
        for _ in 0..CONNECTIONS {
            http1.push(Client::http1(address).await);
            http2.push(Client::http2(address).await);
        }
        protocol("HTTP/1", &runner, http1).await;
        println!();
        protocol("HTTP/2", &runner, http2).await;
    });
    drop(runtime); // closes the connections
    server.stop();
}
