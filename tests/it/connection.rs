//! A task cannot delay its own response, or the next request on that connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Builder,
    sync::Notify,
};
use tower_background_tasks::{BackgroundTasks, Runner};

use crate::support::{Server, connect_http2, full, get as get_request, respond, soon, until};

const REQUEST: &str = "GET /KIND HTTP/1.1\r\nhost: here\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_request_is_taken_whatever_tasks_of_the_last_do() {
    let runner = Runner::new();
    let wake = Arc::new(Notify::new());
    let (unblock, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (sleeping, blocking) = (wake.clone(), blocked.clone());
    let app = Router::new()
        .route(
            "/sleep",
            get(async move |tasks: BackgroundTasks| {
                tasks.add_task(async move { sleeping.notified().await });
                "answered"
            }),
        )
        .route(
            "/block",
            get(async move |tasks: BackgroundTasks| {
                tasks.add_blocking_task(move || {
                    let _ = blocking.lock().unwrap().recv();
                });
                "answered"
            }),
        )
        .route(
            "/fail",
            get(async |tasks: BackgroundTasks| {
                tasks.add_task(async { Err::<(), _>("on purpose") });
                "answered"
            }),
        )
        .route(
            "/panic",
            get(async |tasks: BackgroundTasks| {
                tasks.add_task(async { panic!("on purpose: a task") });
                "answered"
            }),
        )
        .layer(runner.layer());
    let server = Server::start(app).await;
    let mut connection = server.connect().await;
    for kind in ["sleep", "block", "fail", "panic", "sleep", "panic", "fail"] {
        connection.send(&REQUEST.replace("KIND", kind)).await;
        connection.read_until("answered").await;
    }
    until(|| runner.stats().failed >= 2 && runner.stats().panicked >= 2).await;
    let stats = runner.stats();
    assert_eq!((stats.added, stats.running + stats.pending), (7, 3));
    wake.notify_one();
    wake.notify_one();
    drop(unblock);
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 3);
}

/// Without the yield at the head of a batch the task runs before the connection's task writes the answer.
#[test]
fn http2_response_is_prompt_though_its_task_blocks_the_worker() {
    assert_prompt(async |address, runner| {
        let mut client = connect_http2(address).await;
        prompt_answers(runner, async |request| {
            let response = soon(client.send_request(request)).await.unwrap();
            response.collect().await.unwrap().to_bytes()
        })
        .await
    });
}

/// Here hyper has written the answer when the body is dropped, and the batch does not yield.
#[test]
fn http1_response_is_prompt_though_its_task_blocks_the_worker() {
    assert_prompt(async |address, runner| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        prompt_answers(runner, async |request| {
            let response = soon(client.send_request(request)).await.unwrap();
            response.collect().await.unwrap().to_bytes()
        })
        .await
    });
}

const REQUESTS: usize = 15;

/// How long each of some requests takes, one after the other.
async fn prompt_answers(
    runner: Runner,
    mut send: impl AsyncFnMut(Request<Empty<Bytes>>) -> Bytes,
) -> Vec<Duration> {
    let mut times = Vec::new();
    for path in ["/", "/streamed", "/empty"]
        .into_iter()
        .cycle()
        .take(REQUESTS)
    {
        let request = Request::get(format!("http://here{path}"))
            .header("host", "here")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let sent = Instant::now();
        let answer = send(request).await;
        assert_eq!(answer.is_empty(), path == "/empty");
        times.push(sent.elapsed());
        // The only worker is blocked until the task is done; the next request is to find it free.
        soon(runner.idle()).await;
    }
    times
}

/// Runs `client` against a server with one worker, whose every request has a task that blocks its thread.
fn assert_prompt(client: impl AsyncFnOnce(SocketAddr, Runner) -> Vec<Duration>) {
    const BLOCKS: Duration = Duration::from_millis(40);
    let (send_address, address) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runner = Runner::new();
    let layer = runner.layer();
    let serving = thread::spawn(move || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let blocks = async |tasks: BackgroundTasks| {
                tasks.add_task(async { thread::sleep(BLOCKS) });
            };
            let chunks = || {
                futures_util::stream::iter(["one", "two"].map(Ok::<_, std::convert::Infallible>))
            };
            let app = Router::new()
                .route(
                    "/",
                    get(async move |tasks| {
                        blocks(tasks).await;
                        "answered"
                    }),
                )
                .route("/empty", get(blocks))
                .route(
                    "/streamed",
                    get(async move |tasks| {
                        blocks(tasks).await;
                        Body::from_stream(chunks())
                    }),
                )
                .layer(layer);
            let server = Server::start(app).await;
            send_address.send(server.address).unwrap();
            let _ = stopped.await;
        });
    });
    let address = address.recv().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut times = runtime.block_on(client(address, runner.clone()));
    drop(stop);
    serving.join().unwrap();
    times.sort();
    // Of three kinds of answers none is held up: most of all of them are quick, and so are more than two kinds' worth.
    assert!(times[REQUESTS / 2] < Duration::from_millis(5), "{times:?}");
    assert!(times[REQUESTS * 4 / 5] < BLOCKS / 2, "{times:?}");
    assert_eq!(runner.stats().completed, REQUESTS as u64);
}

/// How many of 600 tasks at most ended, on a runtime's one worker, between two answers to a client that asks all the time.
fn tasks_between_two_answers(runner: &Runner, tasks_a_response: usize) -> u64 {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (asked, address) = (runner.clone(), mpsc::channel());
    let answering = runtime.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        address.0.send(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        let (mut answers, mut byte) = (Vec::new(), [0]);
        while socket.read_exact(&mut byte).await.is_ok() {
            answers.push(asked.stats().completed);
            socket.write_all(&byte).await.unwrap();
        }
        answers
    });
    let mut client = std::net::TcpStream::connect(address.1.recv().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let ending = runner.clone();
    let rush = runtime.spawn(async move {
        for _ in 0..600 / tasks_a_response {
            let response = respond(&ending, get_request("/"), move |tasks| {
                for _ in 0..tasks_a_response {
                    tasks.add_task(async { thread::sleep(Duration::from_micros(500)) });
                }
                full("hello")
            });
            drop(response.now_or_never());
        }
    });
    while runner.stats().completed < 600 {
        std::io::Write::write_all(&mut client, b"?").unwrap();
        std::io::Read::read_exact(&mut client, &mut [0]).unwrap();
    }
    drop(client);
    runtime.block_on(rush).unwrap();
    let answers = runtime.block_on(answering).unwrap();
    let between = answers.windows(2).map(|two| two[1] - two[0]);
    between.max().unwrap()
}

#[test]
fn connections_get_their_turns_during_a_rush_on_one_worker() {
    let limited = || Runner::builder().max_running(1_000).build();
    for (runner, tasks_a_response) in [
        (Runner::new(), 1),
        (Runner::new(), 600),
        (limited(), 1),
        (limited(), 600),
    ] {
        let most = tasks_between_two_answers(&runner, tasks_a_response);
        assert!(most < 256, "{most}, with {tasks_a_response} a response");
    }
}
