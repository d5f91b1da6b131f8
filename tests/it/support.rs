//! Scripted bodies, servers and clients, and a log of what happened in which order.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_background_tasks::{
    BackgroundTasks, BackgroundTasksService, BoxError, ResponseBody, ResponseOutcome, Runner, Task,
};

/// Runs a future on this thread, outside of any runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(std::thread::current())).into();
    let (mut future, mut cx) = (std::pin::pin!(future), Context::from_waker(&waker));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::park();
    }
}

/// Waits for something that must happen; a test that waits longer than this is broken, not slow.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("did not happen")
}

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// A task that writes `line`.
    pub(crate) fn task(
        &self,
        line: impl Into<String>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (log, line) = (self.clone(), line.into());
        async move { log.write(line) }
    }
}

/// Where tasks send the outcome that they saw.
pub(crate) struct Outcomes {
    sender: mpsc::UnboundedSender<Option<ResponseOutcome>>,
    receiver: mpsc::UnboundedReceiver<Option<ResponseOutcome>>,
}

impl Outcomes {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver }
    }

    /// A task that runs whatever the outcome, and sends it here.
    pub(crate) fn task(&self) -> Task {
        outcome_task(self.sender.clone())
    }

    /// The outcome of the one request there was, once everything is done; panics when tasks ran more often than once.
    pub(crate) async fn only(&mut self, runner: &Runner) -> ResponseOutcome {
        let outcome = soon(self.receiver.recv())
            .await
            .flatten()
            .expect("the task has a response");
        soon(runner.idle()).await;
        assert!(self.receiver.try_recv().is_err(), "fired twice");
        outcome
    }
}

pub(crate) fn outcome_task(sender: mpsc::UnboundedSender<Option<ResponseOutcome>>) -> Task {
    Task::with_context(|cx| async move {
        let _ = sender.send(cx.response().cloned());
    })
    .run_if(|_| true)
}

/// What a scripted body does, poll by poll.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Data(&'static [u8]),
    Trailers,
    Error,
    Panic,
    /// Not ready, and never woken.
    Pending,
}

/// A body that does what its script says, then gives `None`.
#[derive(Debug, Default)]
pub(crate) struct ScriptedBody {
    steps: VecDeque<Step>,
    /// Says so when the last step is done; otherwise never.
    pub(crate) knows_its_end: bool,
    pub(crate) size_hint: SizeHint,
}

impl ScriptedBody {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(Step::Pending) = self.steps.front() {
            return Poll::Pending;
        }
        Poll::Ready(self.steps.pop_front().map(|step| match step {
            Step::Data(data) => Ok(Frame::data(Bytes::from_static(data))),
            Step::Trailers => Ok(Frame::trailers(HeaderMap::new())),
            Step::Error => Err("the body broke".into()),
            Step::Panic => panic!("on purpose: a body that panics"),
            Step::Pending => unreachable!(),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint
    }
}

/// One request through the layer, without a socket: `handler` adds tasks and gives the response.
pub(crate) async fn respond<B, F>(
    runner: &Runner,
    request: Request<()>,
    handler: F,
) -> Response<ResponseBody<B>>
where
    B: Body,
    F: FnMut(BackgroundTasks) -> Response<B> + Clone,
{
    service(runner, handler).oneshot(request).await.unwrap()
}

/// The layer around a service that cannot fail.
pub(crate) fn service<B, F>(
    runner: &Runner,
    handler: F,
) -> BackgroundTasksService<
    impl Service<
        Request<()>,
        Response = Response<B>,
        Error = Infallible,
        Future: Future<Output = Result<Response<B>, Infallible>>,
    > + Clone,
>
where
    B: Body,
    F: FnMut(BackgroundTasks) -> Response<B> + Clone,
{
    runner
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            let mut handler = handler.clone();
            async move {
                let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
                Ok(handler(tasks))
            }
        }))
}

pub(crate) fn full(body: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::from(body))
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

/// Reads a response to its end, as a well-behaved server does.
pub(crate) async fn read_all<B: Body>(response: Response<B>) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    response.into_body().collect().await.unwrap().to_bytes()
}

/// A real server on a port of its own, until this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Server {
    /// `axum::serve`: HTTP/1, and HTTP/2 for a client that starts with it.
    pub(crate) async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, serving }
    }

    pub(crate) async fn connect(&self) -> RawClient {
        RawClient(TcpStream::connect(self.address).await.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// An HTTP/1 client that shows the bytes.
pub(crate) struct RawClient(pub(crate) TcpStream);

impl RawClient {
    pub(crate) async fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads until what has come contains `text`.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        soon(async {
            while !String::from_utf8_lossy(&read).contains(text) {
                let length = self.0.read_buf(&mut read).await.unwrap();
                assert!(
                    length > 0,
                    "closed after {:?}",
                    String::from_utf8_lossy(&read)
                );
            }
        })
        .await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the server closes.
    pub(crate) async fn read_to_close(&mut self) -> String {
        let mut read = Vec::new();
        let _ = soon(self.0.read_to_end(&mut read)).await;
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// An HTTP/2 connection to `address`.
pub(crate) async fn connect_http2(
    address: SocketAddr,
) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    sender
}
