//! The clients: those that do not go, and a load of those that ask again and again.

use std::{
    any::Any,
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::sleep};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_background_tasks::BoxError;

use super::{
    Kind,
    server::{TASKS_OF_A_REQUEST, TASKS_OF_ALL_KINDS},
};
use crate::support::{RawClient, soon};

type Kept = Vec<Box<dyn Any + Send>>;

/// Clients that stay until what this returns is dropped: an event stream, a download that nobody reads, half a request, a socket,
/// half a request's head. One more has added tasks of all kinds.
pub(super) async fn stay(kind: Kind, address: SocketAddr) -> Kept {
    match kind {
        Kind::Axum | Kind::AxumServer | Kind::Hyper => stay_over_http1(address).await,
        Kind::Tonic => stay_over_grpc(address).await,
    }
}

fn requests_of_all_kinds() -> impl Iterator<Item = String> {
    let firsts = (0..TASKS_OF_ALL_KINDS).step_by(TASKS_OF_A_REQUEST as usize);
    firsts.map(|first| format!("tasks-{first}"))
}

async fn stay_over_http1(address: SocketAddr) -> Kept {
    let connect = async || RawClient(TcpStream::connect(address).await.unwrap());
    for what in requests_of_all_kinds() {
        let mut client = connect().await;
        let head = format!("GET /do/{what} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        client.send(&head).await;
        assert!(client.read_to_close().await.contains("200 OK"));
    }

    let mut events = connect().await;
    events
        .send("GET /events HTTP/1.1\r\nhost: here\r\n\r\n")
        .await;
    events.read_until("event").await;
    let mut unread = connect().await;
    unread
        .send("GET /download HTTP/1.1\r\nhost: here\r\n\r\n")
        .await;
    soon(unread.0.readable()).await.unwrap();
    let mut half_body = connect().await;
    let head =
        "POST /upload HTTP/1.1\r\nhost: here\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n";
    half_body.send(head).await;
    half_body.read_until("100 Continue").await;
    half_body.send("12345").await;
    let mut half_head = connect().await;
    half_head.send("GET /do/work-1 HTTP/1.1\r\nho").await;
    let socket = tokio_tungstenite::connect_async(format!("ws://{address}/socket"));
    let (socket, _) = soon(socket).await.unwrap();
    vec![
        Box::new(events),
        Box::new(unread),
        Box::new(half_body),
        Box::new(half_head),
        Box::new(socket),
    ]
}

async fn stay_over_grpc(address: SocketAddr) -> Kept {
    let mut client = grpc(address).await.unwrap();
    for what in requests_of_all_kinds() {
        client.check(ask(&what)).await.unwrap();
    }
    let mut events = client.watch(ask("")).await.unwrap().into_inner();
    soon(events.message()).await.unwrap().unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.check(ask("hang")).await });
    let mut half_preface = RawClient(TcpStream::connect(address).await.unwrap());
    half_preface.send("PRI * HTTP/2.0\r\n").await;
    vec![Box::new(events), Box::new(waiting), Box::new(half_preface)]
}

async fn grpc(address: SocketAddr) -> Result<HealthClient<Channel>, tonic::transport::Error> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    Ok(HealthClient::new(channel.connect().await?))
}

fn ask(what: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: what.into(),
    }
}

/// Eight clients that ask one request after another, and connect again when the server has gone.
pub(super) struct Load {
    asking: Arc<Asking>,
    clients: JoinSet<()>,
}

struct Asking {
    address: SocketAddr,
    next: AtomicU64,
    answered: Mutex<HashSet<u64>>,
    stopped: AtomicBool,
}

impl Load {
    pub(super) fn start(kind: Kind, port: u16) -> Self {
        let asking = Arc::new(Asking {
            address: ([127, 0, 0, 1], port).into(),
            next: AtomicU64::new(0),
            answered: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let asking = Arc::clone(&asking);
            clients.spawn(async move {
                while !asking.stopped.load(Ordering::Relaxed) {
                    // It ends with its connection, at the latest when the server goes.
                    let _ = match kind {
                        Kind::Axum | Kind::AxumServer | Kind::Hyper => asking.over_http1().await,
                        Kind::Tonic => asking.over_grpc().await,
                    };
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
        Self { asking, clients }
    }

    /// How many requests have been answered.
    pub(super) fn answers(&self) -> usize {
        self.asking.answered.lock().unwrap().len()
    }

    /// Returns the requests that were answered.
    pub(super) async fn stop(self) -> HashSet<u64> {
        self.asking.stopped.store(true, Ordering::Relaxed);
        soon(self.clients.join_all()).await;
        let answered = self.asking.answered.lock().unwrap();
        answered.clone()
    }
}

impl Asking {
    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn answered(&self, number: u64) {
        self.answered.lock().unwrap().insert(number);
    }

    async fn over_http1(&self) -> Result<(), BoxError> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        loop {
            sender.ready().await?;
            let number = self.next();
            let request = Request::get(format!("/do/work-{number}"))
                .header("host", "here")
                .body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            assert_eq!(response.status(), 200);
            response.into_body().collect().await?;
            self.answered(number);
        }
    }

    async fn over_grpc(&self) -> Result<(), BoxError> {
        let mut client = grpc(self.address).await?;
        loop {
            let number = self.next();
            client.check(ask(&format!("work-{number}"))).await?;
            self.answered(number);
        }
    }
}
