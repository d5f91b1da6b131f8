//! The clients: raw HTTP/1 on a socket, and hyper's HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::join_all};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_tungstenite::tungstenite::Message;

use tower_background_tasks::ResponseEnd;

pub(crate) use crate::support::soon;
use crate::{
    rows::{Client, Row, Version},
    servers::Server,
    support::RawClient,
};

/// What a client needs beside the row: the server, and a way to wait until the handler runs.
pub(crate) struct Visit<'a> {
    pub(crate) server: &'a Server,
    pub(crate) row: &'a Row,
    pub(crate) version: Version,
}

impl Visit<'_> {
    /// Does what the row's client does. What it gives back is to be dropped when the outcome is there.
    pub(crate) async fn make(
        &self,
        in_the_handler: impl Future<Output = ()>,
        open_gate: impl FnOnce(),
    ) -> Option<Http2> {
        match (self.version, self.row.client) {
            (_, Client::Upgrades) => {
                websocket(self.server.address).await;
                None
            }
            (Version::Http2, _) => self.http2(in_the_handler, open_gate).await,
            _ => {
                self.http1(in_the_handler, open_gate).await;
                None
            }
        }
    }

    async fn http1(&self, in_the_handler: impl Future<Output = ()>, open_gate: impl FnOnce()) {
        let mut connection = RawClient(TcpStream::connect(self.server.address).await.unwrap());
        let request = |last| self.http1_request(last);
        match self.row.client {
            Client::Reads => {
                connection.send(&request(true)).await;
                self.check_seen(&connection.read_to_close().await);
            }
            Client::Sends { waits_for_100 } => {
                let text = request(true);
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                connection.send(&format!("{head}\r\n\r\n")).await;
                if waits_for_100 && self.version == Version::Http11 {
                    connection.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
                }
                connection.send(body).await;
                self.check_seen(&connection.read_to_close().await);
            }
            Client::KeepsAlive(requests) => {
                for number in 1..=requests {
                    connection.send(&request(number == requests)).await;
                    connection.read_until("hello").await;
                }
            }
            Client::AtOnce(requests) => {
                let all: String = (1..=requests)
                    .map(|number| request(number == requests))
                    .collect();
                connection.send(&all).await;
                let read = connection.read_to_close().await;
                assert_eq!(read.matches("hello").count(), requests, "{read}");
            }
            Client::LeavesAfter(text) | Client::Resets(text) => {
                connection.send(&request(true)).await;
                connection.read_until(text).await;
            }
            Client::LeavesInTheHandler => {
                connection.send(&request(true)).await;
                in_the_handler.await;
            }
            Client::NeverReads => {
                connection.send(&request(true)).await;
                soon(connection.0.readable()).await.unwrap();
            }
            Client::SeesShutdown => {
                connection.send(&request(false)).await;
                connection.read_until("hello").await;
                self.server.shut_down();
                open_gate();
                let rest = connection.read_to_close().await;
                assert!(rest.contains("the rest"), "{rest}");
            }
            Client::Upgrades => unreachable!("not over raw HTTP/1"),
        }
    }

    /// A client that was answered whole must have seen what the row says, the status first.
    fn check_seen(&self, text: &str) {
        let Row {
            end,
            status,
            seen,
            name,
            ..
        } = self.row;
        if let (ResponseEnd::Completed, Some(status)) = (end, status) {
            assert!(
                text.contains(&status.to_string()) && text.contains(seen),
                "{name}: {text}"
            );
        }
    }

    fn http1_request(&self, last: bool) -> String {
        let Row {
            method,
            path,
            headers,
            ..
        } = self.row;
        let mut request = match self.version {
            Version::Http10 => format!("{method} {path} HTTP/1.0\r\n"),
            _ => format!("{method} {path} HTTP/1.1\r\nhost: here\r\n"),
        };
        request += match (self.version, last) {
            (Version::Http10, false) => "connection: keep-alive\r\n",
            (Version::Http11, true) => "connection: close\r\n",
            _ => "",
        };
        for (name, value) in *headers {
            request += &format!("{name}: {value}\r\n");
        }
        match self.row.client {
            Client::Sends { .. } => request + "content-length: 5\r\n\r\nhello",
            _ => request + "\r\n",
        }
    }

    async fn http2(
        &self,
        in_the_handler: impl Future<Output = ()>,
        open_gate: impl FnOnce(),
    ) -> Option<Http2> {
        let mut connection = Http2::connect(self.server.address).await;
        match self.row.client {
            Client::Reads | Client::Sends { .. } => {
                let response = connection.send(self.http2_request()).await;
                self.check_seen(&read(response).await);
            }
            Client::KeepsAlive(requests) => {
                for _ in 0..requests {
                    read(connection.send(self.http2_request()).await).await;
                }
            }
            Client::AtOnce(requests) => {
                let responses = (0..requests).map(|_| connection.send(self.http2_request()));
                let responses: Vec<_> = responses.collect();
                join_all(
                    responses
                        .into_iter()
                        .map(async |response| read(response.await).await),
                )
                .await;
            }
            Client::LeavesAfter(text) => {
                let mut body = connection
                    .send(self.http2_request())
                    .await
                    .unwrap()
                    .into_body();
                read_until(&mut body, text).await;
                connection.close().await;
                return None;
            }
            Client::Resets(text) => {
                let mut body = connection
                    .send(self.http2_request())
                    .await
                    .unwrap()
                    .into_body();
                read_until(&mut body, text).await;
            }
            Client::LeavesInTheHandler => {
                // Dropping the response's future resets the stream; the connection stays.
                let response = connection.send(self.http2_request());
                tokio::select! {
                    _ = response => unreachable!("the handler never answers"),
                    () = in_the_handler => {}
                }
            }
            Client::NeverReads => {
                let body = connection
                    .send(self.http2_request())
                    .await
                    .unwrap()
                    .into_body();
                connection.close().await;
                drop(body);
                return None;
            }
            Client::SeesShutdown => {
                let mut body = connection
                    .send(self.http2_request())
                    .await
                    .unwrap()
                    .into_body();
                read_until(&mut body, "hello").await;
                self.server.shut_down();
                open_gate();
                read_until(&mut body, "the rest").await;
                soon(body.collect()).await.unwrap();
                connection.closed_by_the_server().await;
                return None;
            }
            Client::Upgrades => unreachable!("not over HTTP/2"),
        }
        Some(connection)
    }

    fn http2_request(&self) -> Request<Full<Bytes>> {
        let Row {
            method,
            path,
            headers,
            ..
        } = self.row;
        let mut request = Request::builder()
            .method(*method)
            .uri(format!("http://{}{path}", self.server.address));
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let body = match self.row.client {
            Client::Sends { .. } => Full::from("hello"),
            _ => Full::default(),
        };
        request.body(body).unwrap()
    }
}

/// An HTTP/2 connection, open until this is dropped.
pub(crate) struct Http2 {
    sender: http2::SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        Self { sender, connection }
    }

    pub(crate) fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let response = self.sender.send_request(request);
        soon(response)
    }

    /// Waits until the connection is closed, as it is after a GOAWAY when the last stream has ended.
    async fn closed_by_the_server(mut self) {
        soon(&mut self.connection).await.unwrap().unwrap();
    }

    /// Closes the socket under whatever is open.
    async fn close(self) {
        self.connection.abort();
        let _ = self.connection.await;
    }
}

/// Reads to the end or the first error, and gives what came as text. (A client takes data in an answer to HEAD for an error.)
async fn read(response: hyper::Result<Response<Incoming>>) -> String {
    let Ok(response) = response else {
        return String::new();
    };
    let mut text = format!("{}\n", response.status());
    if let Ok(body) = soon(response.into_body().collect()).await {
        for (name, value) in body.trailers().into_iter().flatten() {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        text += &String::from_utf8_lossy(&body.to_bytes());
    }
    text
}

async fn read_until(body: &mut Incoming, text: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        let frame = soon(body.frame()).await.expect("ended").unwrap();
        read.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
}

/// A WebSocket that says hello, hears it back, and closes.
async fn websocket(address: SocketAddr) {
    let (mut socket, _) = soon(tokio_tungstenite::connect_async(format!("ws://{address}/")))
        .await
        .unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    let answer = soon(socket.next()).await.unwrap().unwrap();
    assert_eq!(answer.into_text().unwrap(), "hello");
    socket.close(None).await.unwrap();
}
