//! What several files of tests need: a log of what happened, requests without a socket; in files of their own bodies, servers
//! and clients.

mod panic_hook;
mod panics_when_dropped;
mod panics_when_shown;
mod raw_client;
mod scripted_body;
mod server;
mod soon;
pub(crate) mod times;

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, mpsc as std_mpsc},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::{sync::mpsc, task::yield_now};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_background_tasks::{
    BackgroundTasks, BackgroundTasksService, ResponseBody, ResponseOutcome, Runner, Task,
};

pub(crate) use self::{
    panic_hook::{no_panic_in, panics_in, watched},
    panics_when_dropped::PanicsWhenDropped,
    panics_when_shown::PanicsWhenShown,
    scripted_body::{ScriptedBody, Step},
    server::{Server, connect_http2},
    soon::{LIMIT, soon},
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

/// Lets others run until something is so. Needs no timer, and leaves a paused clock where it is.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "did not happen");
        yield_now().await;
    }
}

/// Waits, outside of any runtime, until something is so.
pub(crate) fn wait_for(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Every task has ended, in whichever way.
pub(crate) fn is_quiet(runner: &Runner) -> bool {
    let stats = runner.stats();
    (stats.pending, stats.running) == (0, 0)
}

/// Lets others run, `count` times.
pub(crate) async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

/// Held by tests that measure time, or keep the processor busy.
pub(crate) static MEASURES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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

/// A response whose end releases what is then added to the queue.
pub(crate) fn open_response(
    runner: &Runner,
) -> (Response<ResponseBody<Full<Bytes>>>, BackgroundTasks) {
    let tasks = BackgroundTasks::new();
    (runner.attach(full("hello"), tasks.clone()), tasks)
}

/// A blocking task that runs until what comes back is dropped.
pub(crate) fn hold() -> (std_mpsc::Sender<()>, Task) {
    let (release, held) = std_mpsc::channel::<()>();
    let holds = Task::blocking(move || held.recv().unwrap_or_default());
    (release, holds)
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
