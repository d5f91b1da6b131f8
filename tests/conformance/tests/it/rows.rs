//! The table: what is answered, what the client does, and how the response must end.

use std::{
    convert::Infallible,
    future::ready,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{FromRequestParts, WebSocketUpgrade},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, Request, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt, timeout::TimeoutLayer, util::BoxCloneSyncService};
use tower_background_tasks::{
    BackgroundTasks, BoxError,
    ResponseEnd::{self, Aborted, BodyFailed, Cancelled, Completed, Panicked, ServiceFailed},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, predicate::SizeAbove},
    services::{ServeDir, ServeFile},
};

use crate::servers::Service;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
    Http2,
}

use Version::{Http2, Http10, Http11};

/// What the client does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// Reads to the end.
    Reads,
    /// Sends a body too, at once or when it is told to.
    Sends { waits_for_100: bool },
    /// Sends so many requests, each when the last is answered.
    KeepsAlive(usize),
    /// Sends so many requests before it reads: pipelined on HTTP/1, side by side on HTTP/2.
    AtOnce(usize),
    /// Reads until it has seen this, and closes the connection.
    LeavesAfter(&'static str),
    /// Reads until it has seen this, and resets the stream; the connection stays.
    Resets(&'static str),
    /// Leaves while the handler runs.
    LeavesInTheHandler,
    /// Reads no body, and leaves.
    NeverReads,
    /// Reads until it has seen `hello`, has the server shut down, and reads on until it has seen `the rest`.
    SeesShutdown,
    /// Opens a WebSocket, echoes once, and closes.
    Upgrades,
}

/// What stands around the layer, or between it and the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    Bare,
    CatchPanicInside,
    CatchPanicOutside,
    TimeoutInside,
    TimeoutOutside,
    CompressionInside,
    CompressionOutside,
    /// A layer outside that polls the body again after its end.
    PollsAgain,
    /// A layer outside that drops the body on a thread without a runtime.
    DropsOnAThread,
    /// A layer outside that drops the body while unwinding.
    DropsUnwinding,
}

/// How many bytes of the body go by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gone {
    Exactly(u64),
    /// Some, but it depends on buffers how many.
    Some,
    /// Whether any, depends on buffers.
    Any,
}

use Gone::{Any, Exactly, Some as Partly};

pub(crate) type Reply = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) versions: &'static [Version],
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) stack: Stack,
    pub(crate) handler: fn(Request<Body>) -> Reply,
    pub(crate) client: Client,
    pub(crate) end: ResponseEnd,
    pub(crate) status: Option<u16>,
    pub(crate) gone: Gone,
    /// What a client that reads to the end must have seen: in the head, the body or the trailers.
    pub(crate) seen: &'static str,
}

impl Row {
    /// Requests, and so outcomes.
    pub(crate) fn requests(&self) -> usize {
        match self.client {
            Client::KeepsAlive(requests) | Client::AtOnce(requests) => requests,
            _ => 1,
        }
    }

    fn versions(mut self, versions: &'static [Version]) -> Self {
        self.versions = versions;
        self
    }

    fn request(mut self, method: &'static str, path: &'static str) -> Self {
        (self.method, self.path) = (method, path);
        self
    }

    fn headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        self.headers = headers;
        self
    }

    fn stack(mut self, stack: Stack) -> Self {
        self.stack = stack;
        self
    }

    fn client(mut self, client: Client) -> Self {
        self.client = client;
        self
    }

    fn client_sees(mut self, seen: &'static str) -> Self {
        self.seen = seen;
        self
    }

    fn ends(mut self, end: ResponseEnd, status: impl Into<Option<u16>>, gone: Gone) -> Self {
        (self.end, self.status, self.gone) = (end, status.into(), gone);
        self
    }
}

/// By default the client reads to the end, and the whole of a 200 goes by.
fn row(name: &'static str, handler: fn(Request<Body>) -> Reply) -> Row {
    Row {
        name,
        versions: &[Http10, Http11, Http2],
        method: "GET",
        path: "/",
        headers: &[],
        stack: Stack::Bare,
        handler,
        client: Client::Reads,
        end: Completed,
        status: Some(200),
        gone: Exactly(5),
        seen: "",
    }
}

/// Opened by the client: a handler finds it in its request.
#[derive(Clone, Default)]
pub(crate) struct Gate(pub(crate) Arc<Notify>);

fn reply(response: impl IntoResponse) -> Reply {
    Box::pin(ready(Ok(response.into_response())))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn trailers() -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::trailers(HeaderMap::from_iter([(
        "x-sum".parse().unwrap(),
        "5".parse().unwrap(),
    )])))
}

fn streamed<const N: usize>(frames: [Result<Frame<Bytes>, BoxError>; N]) -> Body {
    Body::new(StreamBody::new(stream::iter(frames)))
}

/// A body that knows its size, and not that it has ended.
struct Hinted(Body, u64);

impl http_body::Body for Hinted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1)
    }
}

fn endless(chunk: &'static [u8]) -> Body {
    let chunk = move || Ok::<_, Infallible>(Bytes::from_static(chunk));
    Body::from_stream(stream::repeat_with(chunk))
}

fn stuck_after(text: &'static str) -> Body {
    let first = stream::iter([Ok::<_, Infallible>(text)]);
    Body::from_stream(first.chain(stream::pending()))
}

fn hello(_: Request<Body>) -> Reply {
    reply("hello")
}

fn hello_streamed(_: Request<Body>) -> Reply {
    reply(streamed([data("he"), data(""), data("llo")]))
}

fn no_content(_: Request<Body>) -> Reply {
    reply((StatusCode::NO_CONTENT, "hello"))
}

fn not_modified(_: Request<Body>) -> Reply {
    reply((StatusCode::NOT_MODIFIED, streamed([data("hello")])))
}

fn never(_: Request<Body>) -> Reply {
    Box::pin(std::future::pending())
}

fn panics(_: Request<Body>) -> Reply {
    Box::pin(async { panic!("on purpose: a handler") })
}

fn stuck(_: Request<Body>) -> Reply {
    reply(stuck_after("hello"))
}

fn endless_text(_: Request<Body>) -> Reply {
    reply(endless(b"again and again "))
}

fn endless_mebibytes(_: Request<Body>) -> Reply {
    static MEBIBYTE: [u8; 1 << 20] = [b'x'; 1 << 20];
    reply(endless(&MEBIBYTE))
}

const BIG: u64 = 64 << 20;

fn big(_: Request<Body>) -> Reply {
    reply(vec![b'x'; BIG as usize])
}

fn fails(_: Request<Body>) -> Reply {
    Box::pin(ready(Err("no database".into())))
}

fn echo(request: Request<Body>) -> Reply {
    Box::pin(async {
        Ok(request
            .into_body()
            .collect()
            .await?
            .to_bytes()
            .into_response())
    })
}

/// Long enough to be worth compressing.
const LONG: &str =
    "all work and no play makes a dull server; all work and no play makes a dull server";

fn long(_: Request<Body>) -> Reply {
    reply(LONG)
}

fn events(last: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Reply {
    let first = stream::iter(["one", "two"]).map(|text| Ok(Event::default().data(text)));
    reply(Sse::new(first.chain(last)))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of a handler")]
fn waits_for_the_gate(request: Request<Body>) -> Reply {
    let Gate(gate) = request.extensions().get().cloned().unwrap();
    let rest = stream::once(async move {
        gate.notified().await;
        Ok::<_, Infallible>("the rest")
    });
    reply(Body::from_stream(stream::iter([Ok("hello")]).chain(rest)))
}

/// Echoes once, then adds a task, long after the response.
fn websocket(request: Request<Body>) -> Reply {
    Box::pin(async {
        let (mut head, _) = request.into_parts();
        let tasks = head.extensions.get::<BackgroundTasks>().cloned();
        let late = head.extensions.get::<LateTask>().cloned().unwrap();
        let upgrade = WebSocketUpgrade::from_request_parts(&mut head, &())
            .await
            .map_err(|rejection| rejection.to_string())?;
        Ok(upgrade.on_upgrade(async move |mut socket| {
            if let Some(Ok(message)) = socket.recv().await {
                let _ = socket.send(message).await;
            }
            if let Some(tasks) = tasks {
                tasks.add_task((late.0)());
            }
        }))
    })
}

/// Makes a task to add after an upgrade: a handler finds it in its request.
#[derive(Clone)]
pub(crate) struct LateTask(pub(crate) Arc<dyn Fn() -> tower_background_tasks::Task + Send + Sync>);

const FILE: &str = "hello.txt";
const FILE_BYTES: u64 = 1_000_000;

/// A folder with a file of a million bytes, and a huge one.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), vec![b'f'; FILE_BYTES as usize]).unwrap();
    // Larger than all buffers on its way, and a hole on the disk.
    let huge = std::fs::File::create(folder.path().join("huge")).unwrap();
    huge.set_len(1 << 30).unwrap();
    folder
});

fn serve_file(request: Request<Body>) -> Reply {
    let path: PathBuf = FOLDER.path().join(FILE);
    Box::pin(async { Ok(ServeFile::new(path).oneshot(request).await?.into_response()) })
}

fn serve_dir(request: Request<Body>) -> Reply {
    Box::pin(async {
        Ok(ServeDir::new(FOLDER.path())
            .oneshot(request)
            .await?
            .into_response())
    })
}

pub(crate) fn rows() -> Vec<Row> {
    const HTTP1: &[Version] = &[Http10, Http11];
    vec![
        row("full", hello).client_sees("hello"),
        row("empty", |_| reply(())).ends(Completed, 200, Exactly(0)),
        row("empty, but does not know it", |_| reply(streamed([]))).ends(
            Completed,
            200,
            Exactly(0),
        ),
        row("404", |_| reply((StatusCode::NOT_FOUND, "hello"))).ends(Completed, 404, Exactly(5)),
        row("500", |_| reply((StatusCode::INTERNAL_SERVER_ERROR, ()))).ends(
            Completed,
            500,
            Exactly(0),
        ),
        row("204", |_| reply(StatusCode::NO_CONTENT)).ends(Completed, 204, Exactly(0)),
        row("204 with a body", no_content)
            .versions(HTTP1)
            .ends(Completed, 204, Exactly(0)),
        row("204 with a body: hyper sends it over HTTP/2", no_content)
            .versions(&[Http2])
            .ends(Completed, 204, Exactly(5)),
        row("304 with a body", not_modified)
            .versions(HTTP1)
            .ends(Completed, 304, Exactly(0)),
        row("304 with a body: hyper sends it over HTTP/2", not_modified)
            .versions(&[Http2])
            .ends(Completed, 304, Exactly(5)),
        row("HEAD of a full body", hello)
            .request("HEAD", "/")
            .versions(HTTP1)
            .ends(Completed, 200, Exactly(0)),
        row("HEAD of a full body: hyper polls it over HTTP/2", hello)
            .request("HEAD", "/")
            .versions(&[Http2]),
        row("HEAD of a stream", hello_streamed)
            .request("HEAD", "/")
            .versions(HTTP1)
            .ends(Completed, 200, Exactly(0)),
        row(
            "HEAD of a stream: hyper polls it over HTTP/2",
            hello_streamed,
        )
        .request("HEAD", "/")
        .versions(&[Http2]),
        row("stream", hello_streamed)
            .versions(&[Http10, Http2])
            .client_sees("hello"),
        row("chunked stream", hello_streamed)
            .versions(&[Http11])
            .client_sees("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        row("exact size hint alone", |_| {
            reply(Body::new(Hinted(streamed([data("he"), data("llo")]), 5)))
        })
        .client_sees("hello"),
        row("stream with Content-Length", |_| {
            reply((
                [("content-length", "5")],
                streamed([data("he"), data("llo")]),
            ))
        })
        .client_sees("hello"),
        row("stream that ends before its Content-Length", |_| {
            reply((
                [("content-length", "9")],
                streamed([data("he"), data("llo")]),
            ))
        })
        .ends(BodyFailed, 200, Exactly(5)),
        row("stream that goes on behind its Content-Length", |_| {
            reply((
                [("content-length", "2")],
                streamed([data("he"), data("llo")]),
            ))
        })
        .versions(HTTP1)
        .ends(Completed, 200, Exactly(2)),
        row("trailers", |_| {
            reply((
                [("trailer", "x-sum")],
                streamed([data("hello"), trailers()]),
            ))
        })
        .headers(&[("te", "trailers")])
        .versions(&[Http11, Http2])
        .client_sees("x-sum: 5"),
        row("trailers that the client did not ask for", |_| {
            reply((
                [("trailer", "x-sum")],
                streamed([data("hello"), trailers()]),
            ))
        })
        .client_sees("hello"),
        row("trailers alone", |_| {
            reply(([("trailer", "x-sum")], streamed([trailers()])))
        })
        .headers(&[("te", "trailers")])
        .versions(&[Http11, Http2])
        .ends(Completed, 200, Exactly(0))
        .client_sees("x-sum: 5"),
        row("body error", |_| {
            reply(streamed([data("hello"), Err("the disk is gone".into())]))
        })
        .ends(BodyFailed, 200, Exactly(5)),
        row("body error at once", |_| {
            reply(streamed([Err("the disk is gone".into())]))
        })
        .ends(BodyFailed, 200, Exactly(0)),
        row("body panic", |_| {
            let panics = |()| -> Result<&str, Infallible> { panic!("on purpose: a body") };
            reply(Body::from_stream(stream::iter([()]).map(panics)))
        })
        .ends(Panicked, 200, Exactly(0)),
        row("client leaves while the body is pending", stuck)
            .client(Client::LeavesAfter("hello"))
            .ends(Aborted, 200, Exactly(5)),
        row("client leaves mid-stream", endless_text)
            .client(Client::LeavesAfter("again"))
            .ends(Aborted, 200, Partly),
        row("client never reads an endless stream", endless_mebibytes)
            .client(Client::NeverReads)
            .ends(Aborted, 200, Partly),
        row("client never reads a big body: handed over is ended", big)
            .client(Client::NeverReads)
            .ends(Completed, 200, Exactly(BIG)),
        row("client leaves while the handler runs", never)
            .client(Client::LeavesInTheHandler)
            .ends(Cancelled, None, Exactly(0)),
        row("stream reset while the body is pending", stuck)
            .versions(&[Http2])
            .client(Client::Resets("hello"))
            .ends(Aborted, 200, Exactly(5)),
        row("stream reset mid-stream", endless_text)
            .versions(&[Http2])
            .client(Client::Resets("again"))
            .ends(Aborted, 200, Partly),
        row("graceful shutdown mid-stream", waits_for_the_gate)
            .client(Client::SeesShutdown)
            .ends(Completed, 200, Exactly(13)),
        row("keep-alive", hello).client(Client::KeepsAlive(3)),
        row("keep-alive with empty answers", |_| {
            reply(([("x", "hello")], ()))
        })
        .client(Client::KeepsAlive(3))
        .ends(Completed, 200, Exactly(0)),
        row("pipelined, or side by side", hello)
            .versions(&[Http11, Http2])
            .client(Client::AtOnce(5)),
        row("request with a body", echo)
            .request("POST", "/")
            .client(Client::Sends {
                waits_for_100: false,
            }),
        row("Expect: 100-continue", echo)
            .request("POST", "/")
            .headers(&[("expect", "100-continue")])
            .client(Client::Sends {
                waits_for_100: true,
            }),
        row("Expect: 100-continue, refused", |_| {
            reply(StatusCode::PAYLOAD_TOO_LARGE)
        })
        .request("POST", "/")
        .headers(&[("expect", "100-continue")])
        .client(Client::Sends {
            waits_for_100: false,
        })
        .ends(Completed, 413, Exactly(0)),
        row("upgrade", |_| {
            let head = [("connection", "upgrade"), ("upgrade", "echo")];
            reply((StatusCode::SWITCHING_PROTOCOLS, head, ()))
        })
        .versions(&[Http11])
        .client(Client::LeavesAfter("101 Switching Protocols"))
        .ends(Completed, 101, Exactly(0)),
        row("upgrade whose body does not know its end", |_| {
            let head = [("connection", "upgrade"), ("upgrade", "echo")];
            reply((StatusCode::SWITCHING_PROTOCOLS, head, streamed([])))
        })
        .versions(&[Http11])
        .client(Client::LeavesAfter("101 Switching Protocols"))
        .ends(Completed, 101, Exactly(0)),
        row("CONNECT", |_| reply(streamed([])))
            .request("CONNECT", "here:443")
            .versions(&[Http11])
            .client(Client::LeavesAfter("200 OK"))
            .ends(Completed, 200, Exactly(0)),
        row("WebSocket", websocket)
            .versions(&[Http11])
            .client(Client::Upgrades)
            .ends(Completed, 101, Exactly(0)),
        row("server-sent events", |_| events(stream::empty())).ends(Completed, 200, Exactly(22)),
        row("client leaves server-sent events", |_| {
            events(stream::pending())
        })
        .client(Client::LeavesAfter("two"))
        .ends(Aborted, 200, Exactly(22)),
        row("file", serve_file).ends(Completed, 200, Exactly(FILE_BYTES)),
        row("HEAD of a file", serve_file)
            .request("HEAD", "/")
            .ends(Completed, 200, Exactly(0)),
        row("client leaves a file", serve_dir)
            .request("GET", "/huge")
            .client(Client::LeavesAfter("\0\0\0"))
            .ends(Aborted, 200, Partly),
        row("file from a folder", serve_dir)
            .request("GET", "/hello.txt")
            .ends(Completed, 200, Exactly(FILE_BYTES)),
        row("range of a file", serve_dir)
            .request("GET", "/hello.txt")
            .headers(&[("range", "bytes=10-109")])
            .ends(Completed, 206, Exactly(100)),
        row("range behind a file's end", serve_dir)
            .request("GET", "/hello.txt")
            .headers(&[("range", "bytes=2000000-")])
            .ends(Completed, 416, Exactly(0)),
        row("file not modified", serve_dir)
            .request("GET", "/hello.txt")
            .headers(&[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")])
            .ends(Completed, 304, Exactly(0)),
        row("file not found", serve_dir)
            .request("GET", "/goodbye.txt")
            .ends(Completed, 404, Exactly(0)),
        row("service error", fails).ends(ServiceFailed, None, Exactly(0)),
        row("handler panics", panics).ends(Panicked, None, Exactly(0)),
        row("handler panics, caught inside", panics)
            .stack(Stack::CatchPanicInside)
            .ends(Completed, 500, Exactly(16))
            .client_sees("Service panicked"),
        row("handler panics, caught outside", panics)
            .stack(Stack::CatchPanicOutside)
            .ends(Panicked, None, Exactly(0)),
        row("timeout inside", never)
            .stack(Stack::TimeoutInside)
            .ends(ServiceFailed, None, Exactly(0)),
        row("timeout outside", never)
            .stack(Stack::TimeoutOutside)
            .ends(Cancelled, None, Exactly(0)),
        row("compression inside", long)
            .headers(&[("accept-encoding", "gzip")])
            .stack(Stack::CompressionInside)
            .ends(Completed, 200, Partly),
        row("compression outside", long)
            .headers(&[("accept-encoding", "gzip")])
            .stack(Stack::CompressionOutside)
            .ends(Completed, 200, Exactly(LONG.len() as u64)),
        row("client leaves compression inside", stuck)
            .headers(&[("accept-encoding", "gzip")])
            .stack(Stack::CompressionInside)
            .client(Client::NeverReads)
            .ends(Aborted, 200, Any),
        row("client leaves compression outside", stuck)
            .headers(&[("accept-encoding", "gzip")])
            .stack(Stack::CompressionOutside)
            .client(Client::NeverReads)
            .ends(Aborted, 200, Exactly(5)),
        row("polled after the end", hello_streamed).stack(Stack::PollsAgain),
        row("dropped on a foreign thread", stuck)
            .stack(Stack::DropsOnAThread)
            .client(Client::LeavesAfter("hello"))
            .ends(Aborted, 200, Exactly(5)),
        row("dropped while unwinding", stuck)
            .stack(Stack::DropsUnwinding)
            .client(Client::LeavesAfter("hello"))
            .ends(Panicked, 200, Exactly(5)),
    ]
}

impl Stack {
    /// What stands between the layer and the handler.
    pub(crate) fn inside(self, service: Service) -> Service {
        match self {
            Self::CatchPanicInside => boxed(CatchPanicLayer::new().layer(service)),
            Self::TimeoutInside => boxed(TimeoutLayer::new(SHORT).layer(service)),
            Self::CompressionInside => boxed(compression().layer(service)),
            _ => service,
        }
    }

    /// What stands around the layer.
    pub(crate) fn outside(self, service: Service) -> Service {
        match self {
            Self::CatchPanicOutside => boxed(CatchPanicLayer::new().layer(service)),
            Self::TimeoutOutside => boxed(TimeoutLayer::new(SHORT).layer(service)),
            Self::CompressionOutside => boxed(compression().layer(service)),
            Self::PollsAgain | Self::DropsOnAThread | Self::DropsUnwinding => {
                boxed(service.map_response(move |response| {
                    response.map(|inner| {
                        Body::new(Meddling {
                            inner: Some(inner),
                            how: self,
                        })
                    })
                }))
            }
            _ => service,
        }
    }
}

const SHORT: Duration = Duration::from_millis(20);

fn compression() -> CompressionLayer<SizeAbove> {
    CompressionLayer::new().compress_when(SizeAbove::new(0))
}

pub(crate) fn boxed<S, B>(service: S) -> Service
where
    S: tower::Service<Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service
        .map_response(|response| response.map(Body::new))
        .map_err(|error| io::Error::other(error.into()));
    BoxCloneSyncService::new(service)
}

/// The handler's body, which tells when it has ended or is dropped.
pub(crate) struct Telling {
    inner: Body,
    is_alive: Arc<AtomicBool>,
}

impl Telling {
    pub(crate) fn new(inner: Body, is_alive: &Arc<AtomicBool>) -> Self {
        is_alive.store(true, Ordering::SeqCst);
        Self {
            inner,
            is_alive: Arc::clone(is_alive),
        }
    }
}

impl http_body::Body for Telling {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.is_alive.store(false, Ordering::SeqCst);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.is_alive.store(false, Ordering::SeqCst);
    }
}

/// A body that treats the one inside badly, as `how` says.
struct Meddling {
    /// `None` once it is dropped.
    inner: Option<Body>,
    how: Stack,
}

impl http_body::Body for Meddling {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let again = self.how == Stack::PollsAgain;
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *inner).poll_frame(cx);
        if again && matches!(polled, Poll::Ready(None)) {
            assert!(Pin::new(inner).poll_frame(cx).is_ready());
        }
        polled
    }
}

impl Drop for Meddling {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        match self.how {
            Stack::DropsOnAThread => std::thread::spawn(|| drop(inner)).join().unwrap(),
            Stack::DropsUnwinding => {
                let unwinding = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let _inner = inner;
                    panic!("on purpose: while a body is dropped");
                }));
                assert!(unwinding.is_err());
            }
            _ => {}
        }
    }
}
