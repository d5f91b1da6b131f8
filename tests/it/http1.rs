//! What hyper does with a response over HTTP/1, on real sockets: each row ends as the table says, and fires once.

use std::{convert::Infallible, future::pending};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::{Empty, StreamBody};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tower_background_tasks::{
    BackgroundTasks, BoxError,
    ResponseEnd::{self, Aborted, BodyFailed, Cancelled, Completed, Panicked},
    ResponseOutcome, Runner,
};

use crate::support::{Outcomes, RawClient, Server, outcome_task, soon};

/// What the client does.
enum Client {
    /// Reads until the server closes.
    Reads,
    /// Reads until it has seen this, and leaves.
    LeavesAfter(&'static str),
    /// Leaves when the handler runs.
    LeavesInTheHandler,
    /// Reads nothing, and leaves when the server has written all it can.
    NeverReads,
}

struct Row {
    name: &'static str,
    method: &'static str,
    respond: fn() -> Response,
    client: Client,
    end: ResponseEnd,
    status: Option<u16>,
    bytes: BodyBytes,
}

/// The body's bytes that went by.
enum BodyBytes {
    Exactly(u64),
    /// More than nothing and less than everything.
    Some,
}

use BodyBytes::{Exactly, Some as SomeBytes};

fn streamed(frames: impl IntoIterator<Item = Result<Frame<Bytes>, BoxError>>) -> Body
where
{
    let frames: Vec<_> = frames.into_iter().collect();
    Body::new(StreamBody::new(stream::iter(frames)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn endless(chunk: &'static [u8]) -> Body {
    Body::from_stream(stream::repeat_with(move || {
        Ok::<_, Infallible>(Bytes::from_static(chunk))
    }))
}

fn stuck_after(text: &'static str) -> Body {
    let first = stream::iter([Ok::<_, Infallible>(text)]);
    Body::from_stream(first.chain(stream::pending()))
}

static MEBIBYTE: [u8; 1 << 20] = [b'x'; 1 << 20];

fn rows() -> Vec<Row> {
    let row = |name, respond, client, end, status: u16, bytes| Row {
        name,
        method: "GET",
        respond,
        client,
        end,
        status: Some(status),
        bytes,
    };
    use Client::{LeavesAfter, LeavesInTheHandler, NeverReads, Reads};
    vec![
        row(
            "full",
            || "hello".into_response(),
            Reads,
            Completed,
            200,
            Exactly(5),
        ),
        row(
            "empty body",
            || ().into_response(),
            Reads,
            Completed,
            200,
            Exactly(0),
        ),
        row(
            "empty body that does not know",
            || Response::new(streamed([])),
            Reads,
            Completed,
            200,
            Exactly(0),
        ),
        row(
            "no route",
            || StatusCode::NOT_FOUND.into_response(),
            Reads,
            Completed,
            404,
            Exactly(0),
        ),
        row(
            "204",
            || StatusCode::NO_CONTENT.into_response(),
            Reads,
            Completed,
            204,
            Exactly(0),
        ),
        row(
            "204 with a body",
            || (StatusCode::NO_CONTENT, "never sent").into_response(),
            Reads,
            Completed,
            204,
            Exactly(0),
        ),
        row(
            "304 with a body",
            || (StatusCode::NOT_MODIFIED, streamed([data("never sent")])).into_response(),
            Reads,
            Completed,
            304,
            Exactly(0),
        ),
        Row {
            method: "HEAD",
            ..row(
                "HEAD",
                || "hello".into_response(),
                Reads,
                Completed,
                200,
                Exactly(0),
            )
        },
        Row {
            method: "HEAD",
            ..row(
                "HEAD of a stream",
                || Response::new(streamed([data("hello")])),
                Reads,
                Completed,
                200,
                Exactly(0),
            )
        },
        row(
            "stream",
            || Response::new(streamed([data("one"), data(""), data("two")])),
            Reads,
            Completed,
            200,
            Exactly(6),
        ),
        row(
            "stream with Content-Length",
            || {
                (
                    [("content-length", "6")],
                    streamed([data("one"), data("two")]),
                )
                    .into_response()
            },
            Reads,
            Completed,
            200,
            Exactly(6),
        ),
        row(
            "stream that ends before its Content-Length",
            || {
                (
                    [("content-length", "9")],
                    streamed([data("one"), data("two")]),
                )
                    .into_response()
            },
            Reads,
            Completed,
            200,
            Exactly(6),
        ),
        row(
            "trailers",
            || {
                let trailers =
                    HeaderMap::from_iter([("x-sum".parse().unwrap(), "6".parse().unwrap())]);
                let frames = [data("hello!"), Ok(Frame::trailers(trailers))];
                ([("trailer", "x-sum")], streamed(frames)).into_response()
            },
            Reads,
            Completed,
            200,
            Exactly(6),
        ),
        row(
            "body error",
            || Response::new(streamed([data("one"), Err("the disk is gone".into())])),
            Reads,
            BodyFailed,
            200,
            Exactly(3),
        ),
        row(
            "body panic",
            || {
                let panics =
                    |_| -> Result<&'static str, Infallible> { panic!("on purpose: a body") };
                Response::new(Body::from_stream(stream::iter([()]).map(panics)))
            },
            Reads,
            Panicked,
            200,
            Exactly(0),
        ),
        row(
            "client leaves while the body is pending",
            || Response::new(stuck_after("hello")),
            LeavesAfter("hello"),
            Aborted,
            200,
            Exactly(5),
        ),
        row(
            "client leaves mid-stream",
            || Response::new(endless(b"again and again ")),
            LeavesAfter("again"),
            Aborted,
            200,
            SomeBytes,
        ),
        row(
            "client never reads an endless stream",
            || Response::new(endless(&MEBIBYTE)),
            NeverReads,
            Aborted,
            200,
            SomeBytes,
        ),
        row(
            "client never reads a big body: handed over is ended",
            || Body::from(Bytes::from(vec![b'x'; 64 << 20])).into_response(),
            NeverReads,
            Completed,
            200,
            Exactly(64 << 20),
        ),
        Row {
            status: None,
            ..row(
                "client leaves while the handler runs",
                || unreachable!("the handler never answers"),
                LeavesInTheHandler,
                Cancelled,
                0,
                Exactly(0),
            )
        },
        Row {
            status: None,
            ..row(
                "handler panics",
                || panic!("on purpose: a handler"),
                Reads,
                Panicked,
                0,
                Exactly(0),
            )
        },
        row(
            "upgrade",
            || {
                let head = [("connection", "upgrade"), ("upgrade", "echo")];
                (
                    StatusCode::SWITCHING_PROTOCOLS,
                    head,
                    Body::new(Empty::new()),
                )
                    .into_response()
            },
            LeavesAfter("101 Switching Protocols"),
            Completed,
            101,
            Exactly(0),
        ),
    ]
}

#[derive(Clone)]
struct Handler {
    outcome: UnboundedSender<Option<ResponseOutcome>>,
    reached: UnboundedSender<()>,
    respond: fn() -> Response,
    answers: bool,
}

async fn handle(State(handler): State<Handler>, tasks: BackgroundTasks) -> Response {
    tasks.add_task(outcome_task(handler.outcome));
    let _ = handler.reached.send(());
    if !handler.answers {
        pending::<()>().await;
    }
    (handler.respond)()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_ends_as_it_should_and_fires_once() {
    let rows = rows();
    let count = rows.len();
    for Row {
        name,
        method,
        respond,
        client,
        end,
        status,
        bytes,
    } in rows
    {
        let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
        let (reached, mut is_reached) = unbounded_channel();
        let handler = Handler {
            outcome: outcomes.sender(),
            reached,
            respond,
            answers: !matches!(client, Client::LeavesInTheHandler),
        };
        let app = Router::new().route("/", any(handle)).with_state(handler);
        let server = Server::start(app.layer(runner.layer())).await;
        let mut connection: RawClient = server.connect().await;
        connection
            .send(&format!(
                "{method} / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
            ))
            .await;
        soon(is_reached.recv()).await;
        match client {
            Client::Reads => drop(connection.read_to_close().await),
            Client::LeavesAfter(text) => drop(connection.read_until(text).await),
            Client::NeverReads => connection.0.readable().await.unwrap(),
            Client::LeavesInTheHandler => {}
        }
        drop(connection);
        let outcome = outcomes.only(&runner).await;
        assert_eq!(outcome.end, end, "{name}: {outcome:?}");
        assert_eq!(
            outcome.status.map(|status| status.as_u16()),
            status,
            "{name}"
        );
        match bytes {
            Exactly(bytes) => assert_eq!(outcome.body_bytes, bytes, "{name}"),
            SomeBytes => assert!(outcome.body_bytes > 0, "{name}"),
        }
        assert_eq!(runner.stats().completed, 1, "{name}");
        assert_eq!(runner.stats().added, 1, "{name}");
    }
    println!("{count} rows");
}
