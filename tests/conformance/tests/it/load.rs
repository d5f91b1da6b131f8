//! Random requests for a server whose handlers do as the request says, and clients that leave when they like.

use std::{future::pending, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_background_tasks::{BackgroundTasks, BoxError, Task};

use crate::support::PanicsWhenDropped;

/// xorshift64*: random enough, and the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}

/// A task of one of many kinds: most end well.
fn task(kind: u64, tasks: &BackgroundTasks) -> Task {
    let (short, tasks) = (Duration::from_millis(1), tasks.clone());
    match kind {
        0 => Task::new(async { Err::<(), _>("on purpose") }),
        1 => Task::new(async { panic!("on purpose: a task") }),
        2 => Task::blocking(|| panic!("on purpose: a task")),
        3 => Task::new(pending::<()>()).timeout(short),
        4 => Task::new(async {}).run_if(|_| false),
        5 => Task::new(async {}).run_if(|_| panic!("on purpose: a condition")),
        6 => Task::new(async move { tasks.add_task(async {}) }),
        7 => Task::blocking(move || tasks.add_blocking_task(|| ())),
        8 => {
            let captured = PanicsWhenDropped;
            Task::new(async move { drop(captured) })
        }
        9 => Task::blocking(move || std::thread::sleep(short)).timeout(5 * short),
        10..=12 => Task::new(async move { tokio::time::sleep(short).await }),
        13..=15 => Task::blocking(move || std::thread::sleep(short / 4)),
        16..=18 => Task::blocking(|| ()),
        _ => Task::new(async {}),
    }
}

/// Adds the tasks that `seed` says, and answers as it says.
async fn handle(Path(seed): Path<u64>, tasks: BackgroundTasks) -> Response {
    let mut random = Random::new(seed);
    for _ in 0..random.below(5) {
        let task = task(random.below(40), &tasks);
        if random.below(2) == 0 {
            tasks.add_task(task);
        } else if tasks.try_add_task(task).is_err() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    match random.below(20) {
        0 => panic!("on purpose: a handler"),
        1 => {
            tokio::time::sleep(Duration::from_millis(2)).await;
            "slow".into_response()
        }
        2 => {
            let returned = BackgroundTasks::new();
            returned.add_task(async {});
            (returned, "with a task").into_response()
        }
        3..=6 => {
            let chunk = Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 1000]));
            let chunks = stream::iter(vec![chunk; random.below(50) as usize]);
            Body::from_stream(chunks.then(async |chunk| {
                tokio::task::yield_now().await;
                chunk
            }))
            .into_response()
        }
        7 => StatusCode::NO_CONTENT.into_response(),
        _ => "hello".into_response(),
    }
}

pub(crate) fn router() -> Router {
    Router::new().route("/{seed}", get(handle))
}

/// Sends so many requests, and leaves now and then. Gives how often it left.
pub(crate) async fn client(address: SocketAddr, seed: u64, requests: usize) -> usize {
    let mut random = Random::new(seed);
    let (mut sent, mut left) = (0, 0);
    while sent < requests {
        let mut connection = connect(address).await.ok();
        while let Some(open) = &mut connection {
            sent += 1;
            match visit(open, &mut random).await {
                Visit::GoesOn if sent < requests => {}
                Visit::Left => {
                    left += 1;
                    connection = None;
                }
                Visit::GoesOn | Visit::Closed => connection = None,
            }
        }
    }
    left
}

enum Visit {
    GoesOn,
    /// The client left before it had everything.
    Left,
    /// The server closed: the handler panicked.
    Closed,
}

async fn visit(connection: &mut Connection, random: &mut Random) -> Visit {
    let request = Request::get(format!("/{}", random.next()))
        .header("host", "here")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = connection.send_request(request);
    let leaves = random.below(10);
    if leaves == 0 {
        let wait = Duration::from_micros(random.below(500));
        drop(tokio::time::timeout(wait, response).await);
        return Visit::Left;
    }
    let Ok(response) = response.await else {
        return Visit::Closed;
    };
    let mut body = response.into_body();
    if leaves == 1 {
        drop(body.frame().await);
        return Visit::Left;
    }
    match body.collect().await {
        Ok(_) => Visit::GoesOn,
        Err(_) => Visit::Closed,
    }
}

type Connection = http1::SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> Result<Connection, BoxError> {
    let stream = TcpStream::connect(address).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
