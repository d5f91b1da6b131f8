//! [`Runner::serve`]: one plan to end the server, its requests and their tasks.

use std::{
    fmt,
    future::{Future, IntoFuture, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    thread,
    time::{Duration, Instant},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

#[cfg(feature = "signal")]
use super::signals::SystemSignals;
use super::{Runner, shutdown::ShutdownReport};
#[cfg(feature = "signal")]
use crate::util::contain::contain;
use crate::{
    observe::report::{going_down, server_failed},
    queue::open::CutOff,
    util::{sync::lock, timer::elapse},
};

/// A server that runs until a signal and then shuts down, from [`Runner::serve`].
///
/// It does nothing unless it is awaited.
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<S> {
    runner: Runner,
    server: S,
    stop: CancellationToken,
    plan: Plan,
}

struct Plan {
    signal: Source,
    unready_for: Duration,
    requests: Duration,
    tasks: Duration,
}

/// The source of the signals that start and shorten the plan.
enum Source {
    /// The operating system's signals.
    #[cfg(feature = "signal")]
    System,
    /// A future of the caller. It gives one signal.
    Given(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Completes when the server must stop gracefully. [`Runner::serve`] passes it to its closure.
#[must_use = "a server that does not wait for this never stops gracefully"]
pub struct ShutdownSignal(Pin<Box<WaitForCancellationFutureOwned>>);

impl Runner {
    /// Runs a server until SIGTERM or Ctrl-C. Then ends the server, its requests and their tasks,
    /// in this order.
    ///
    /// `server` makes the server. It gets a future that completes when the server must stop
    /// gracefully. Pass that to axum's `with_graceful_shutdown` or tonic's `serve_with_shutdown`,
    /// or await it in an async block around any other server.
    ///
    /// 1. At a signal, the runner stops being [ready](Self::is_ready). The server continues for
    ///    [`unready_for`](Serve::unready_for), which is zero by default.
    /// 2. The server is told to stop, and tasks are notified
    ///    ([`TaskContext::shutting_down`](crate::TaskContext::shutting_down)). Requests have up to
    ///    [`requests`](Serve::requests), 10 seconds by default. Requests that are still open are
    ///    then cut off, and nothing more of them passes: event streams, slow clients, handlers.
    ///    Their tasks run with the end [`Aborted`](crate::ResponseEnd::Aborted), or
    ///    [`Cancelled`](crate::ResponseEnd::Cancelled) if there was no response. The connection
    ///    drops a handler that is cut off, perhaps while its tasks run. A
    ///    [detached](crate::BackgroundTasksLayer::detached) handler continues as a task. The
    ///    server is dropped. Connections that it has spawned end with the process.
    /// 3. Tasks have up to [`tasks`](Serve::tasks), 10 seconds by default, as in
    ///    [`shutdown`](Self::shutdown).
    ///
    /// A second signal ends all waiting. Without one, this returns once its times are over,
    /// whatever clients do. The `spill_timeout` of a job store comes on top. The report names what
    /// was cut off and what was aborted.
    ///
    /// Run one server at a time on a runner. When one shuts down, it cuts off all requests of the
    /// runner, and closes the runner. For two listeners, run both servers in one `server` with
    /// `tokio::join!`.
    ///
    /// On Unix, the signals are SIGTERM and SIGINT (Ctrl-C). On Windows, they are Ctrl-C, the
    /// closing of the console and a system shutdown. [`serve_until`](Self::serve_until) takes a
    /// future instead. Tokio keeps its signal handlers for the life of the process. Once this has
    /// returned, a signal no longer ends the process, so `main` should return soon.
    ///
    /// ```no_run
    /// use axum::{Router, routing::get};
    /// use tower_background_tasks::{BackgroundTasks, BoxError, Runner};
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<(), BoxError> {
    ///     let runner = Runner::new();
    ///     let app: Router = Router::new()
    ///         .route("/", get(async |tasks: BackgroundTasks| tasks.add_task(async {})))
    ///         .layer(runner.layer());
    ///     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    ///     let report = runner
    ///         .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
    ///         .await?;
    ///     println!("{report}");
    ///     report.exit() // it waits for no blocking task that cannot be stopped
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Awaiting this returns the server's error when the server fails. Its requests and tasks have
    /// ended by then, as after a signal. The report is logged as an error.
    ///
    /// # Panics
    ///
    /// Awaiting this panics if the server panics, once its requests and tasks have ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the [`Serve`] or its future drops the server. Tasks continue, and
    /// [`shutdown`](Self::shutdown) ends them.
    #[cfg(feature = "signal")]
    #[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
    pub fn serve<S>(&self, server: impl FnOnce(ShutdownSignal) -> S) -> Serve<S> {
        self.serve_on(Source::System, server)
    }

    /// Like `serve`, with a future in place of the signals. There is no second signal, so each
    /// step has its whole time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use std::convert::Infallible;
    /// use tower_background_tasks::Runner;
    ///
    /// let runner = Runner::new();
    /// let stop = async { println!("stop") };
    /// let server = |shutdown| async {
    ///     let () = shutdown.await; // a server that has no requests
    ///     Ok::<(), Infallible>(())
    /// };
    /// let report = runner.serve_until(stop, server).await.unwrap();
    /// assert!(report.is_clean());
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Awaiting this returns the server's error when the server fails.
    ///
    /// # Panics
    ///
    /// Awaiting this panics if the server panics, once its requests and tasks have ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the [`Serve`] or its future drops the server. Tasks continue, and
    /// [`shutdown`](Self::shutdown) ends them.
    pub fn serve_until<S>(
        &self,
        signal: impl Future<Output = ()> + Send + 'static,
        server: impl FnOnce(ShutdownSignal) -> S,
    ) -> Serve<S> {
        // A panic of the future counts as the signal, as the future cannot be polled again.
        let signal = async { drop(contained(signal).await) };
        self.serve_on(Source::Given(Box::pin(signal)), server)
    }

    fn serve_on<S>(&self, signal: Source, server: impl FnOnce(ShutdownSignal) -> S) -> Serve<S> {
        self.shared().follow_requests();
        let stop = CancellationToken::new();
        let shutdown = ShutdownSignal(Box::pin(stop.clone().cancelled_owned()));
        Serve {
            runner: self.clone(),
            server: server(shutdown),
            stop,
            plan: Plan {
                signal,
                unready_for: Duration::ZERO,
                requests: Duration::from_secs(10),
                tasks: Duration::from_secs(10),
            },
        }
    }
}

impl<S> Serve<S> {
    /// Sets how long the server continues after the signal while it is not
    /// [ready](Runner::is_ready), so that load balancers can notice. Zero by default.
    pub fn unready_for(mut self, time: Duration) -> Self {
        self.plan.unready_for = time;
        self
    }

    /// Sets how long requests may take once the server stops. The default is 10 seconds.
    pub fn requests(mut self, time: Duration) -> Self {
        self.plan.requests = time;
        self
    }

    /// Sets how long tasks may take once the requests have ended. The default is 10 seconds.
    pub fn tasks(mut self, time: Duration) -> Self {
        self.plan.tasks = time;
        self
    }
}

impl<S, T, E> IntoFuture for Serve<S>
where
    S: IntoFuture<Output = Result<T, E>>,
    S::IntoFuture: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<ShutdownReport, E>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let server = self.server.into_future();
        Box::pin(run(self.runner, server, self.stop, self.plan))
    }
}

async fn run<T, E>(
    runner: Runner,
    server: impl Future<Output = Result<T, E>>,
    stop: CancellationToken,
    plan: Plan,
) -> Result<ShutdownReport, E> {
    let (shared, mut server) = (runner.shared(), Box::pin(contained(server)));
    let mut signals = Signals::new(plan.signal);
    let mut served = first(server.as_mut(), signals.next()).await.ok();
    shared.make_unready();
    shared.note_deadline(plan.unready_for);
    if served.is_none() && !plan.unready_for.is_zero() {
        going_down(format_args!("not ready, for {:?}", plan.unready_for));
        served = signals.within(plan.unready_for, server.as_mut()).await;
    }
    stop.cancel();
    shared.note_deadline(plan.requests.saturating_add(plan.tasks));
    shared.closing.cancel(); // its waiters' wakers are contained
    let time = signals.left_of(plan.requests);
    going_down(format_args!("requests have {time:?}"));
    let requests = async {
        if served.is_none() {
            served = Some(server.as_mut().await);
        }
        shared.requests_ended().await; // the server may not have waited for them
    };
    if signals.within(time, requests).await.is_some() {
        going_down(format_args!("all requests have ended"));
    }
    // Names the open requests before the server is dropped, and with it the handlers that it owns.
    // Their tasks run after that.
    let cut_off = runner.cut_off_open();
    if served.is_none() && cut_off.is_empty() {
        lock(&shared.unfinished).is_server_cut_off = true;
    }
    if let Err(panic) = dropped(server) {
        served = Some(Err(panic));
    }
    drop(cut_off); // their tasks run

    let (begun, grace) = (Instant::now(), signals.left_of(plan.tasks));
    going_down(format_args!("tasks have {grace:?}"));
    // A second signal drops this call. The call below then aborts the tasks that this one waited
    // for.
    let _ = first(runner.shutdown(grace), signals.second()).await;
    // Detached handlers have ended by now. Their answers are on their way.
    let left = grace.saturating_sub(begun.elapsed());
    signals.within(left, shared.requests_ended()).await;
    // Cut off requests that have arrived since, at a server that continues in tasks of its own.
    drop(runner.cut_off_open());
    let report = runner.shutdown(Duration::ZERO).await;
    match served {
        None | Some(Ok(Ok(_))) => Ok(report),
        Some(Ok(Err(error))) => {
            server_failed(&report);
            Err(error)
        }
        Some(Err(panic)) => {
            server_failed(&report);
            resume_unwind(panic)
        }
    }
}

impl Runner {
    /// Cuts off the open responses and names them in the report.
    fn cut_off_open(&self) -> Vec<CutOff> {
        let cut_off = self.owner().cut_off_open();
        let rows = cut_off.iter().map(CutOff::row);
        lock(&self.shared().unfinished).requests.extend(rows);
        cut_off
    }
}

/// Contains the panics of `future`. The first panic is the output.
async fn contained<F: Future>(future: F) -> thread::Result<F::Output> {
    let mut future = Box::pin(future);
    let polled = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    );
    let ended = polled.await;
    dropped(future)?;
    ended
}

/// Drops a value. Returns the panic of its destructor as the error.
fn dropped<T>(value: T) -> thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| drop(value)))
}

/// The signals that have come, and their source.
struct Signals {
    source: Option<Listening>,
    /// How many signals have come.
    seen: usize,
}

/// A [`Source`] that is being polled.
enum Listening {
    #[cfg(feature = "signal")]
    System(SystemSignals),
    Given(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Signals {
    fn new(source: Source) -> Self {
        let source = match source {
            #[cfg(feature = "signal")]
            Source::System => match contain(SystemSignals::listen) {
                Ok(Ok(signals)) => Some(Listening::System(signals)),
                Ok(Err(error)) => no_signals(&error),
                Err(panic) => no_signals(&panic), // a runtime without I/O
            },
            Source::Given(signal) => Some(Listening::Given(signal)),
        };
        Self { source, seen: 0 }
    }

    async fn next(&mut self) {
        poll_fn(|cx| match &mut self.source {
            #[cfg(feature = "signal")]
            Some(Listening::System(signals)) => signals.poll_next(cx),
            Some(Listening::Given(signal)) => {
                ready!(signal.as_mut().poll(cx));
                self.source = None; // a source yields one signal
                Poll::Ready(())
            }
            None => Poll::Pending,
        })
        .await;
        self.seen += 1;
    }

    /// Waits until two signals have come. The server may have ended before the first.
    async fn second(&mut self) {
        while self.seen < 2 {
            self.next().await;
            if self.seen == 2 {
                going_down(format_args!("a second signal, so nothing is waited for"));
            }
        }
    }

    /// Returns `time`, or zero once a second signal has come.
    fn left_of(&self, time: Duration) -> Duration {
        if self.seen < 2 { time } else { Duration::ZERO }
    }

    /// Waits for `future`, at most for `time`, or until a second signal. After a second signal
    /// this does not wait.
    async fn within<T>(&mut self, time: Duration, future: impl Future<Output = T>) -> Option<T> {
        let over = first(elapse(self.left_of(time)), self.second());
        first(future, over).await.ok()
    }
}

/// Returns `Ok` with the output of `a`, or `Err` with the output of `b`, whichever completes
/// first.
async fn first<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> Result<A, B> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(a) => Poll::Ready(Ok(a)),
        Poll::Pending => b.as_mut().poll(cx).map(Err),
    })
    .await
}

#[cfg(feature = "signal")]
fn no_signals(why: &dyn fmt::Display) -> Option<Listening> {
    crate::observe::report::no_signals(why);
    None
}

impl Future for ShutdownSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ShutdownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownSignal").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("unready_for", &self.plan.unready_for)
            .field("requests", &self.plan.requests)
            .field("tasks", &self.plan.tasks)
            .finish_non_exhaustive()
    }
}
