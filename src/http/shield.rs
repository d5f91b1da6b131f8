//! [`BackgroundTasks::shield`]: work that continues when its handler is dropped.

use std::{
    any::type_name,
    borrow::Cow,
    error::Error,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
};

use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use super::current::Entered;
use crate::{
    BackgroundTasks,
    observe::span::TaskSpan,
    queue::Queue,
    task::{Task, label::without_closures},
    util::contain::{contain, message_of},
};

pin_project! {
    /// A future for the output of shielded work, from [`BackgroundTasks::shield`].
    ///
    /// If this is dropped, the work continues.
    #[must_use = "the work goes on without it, but its output is lost"]
    pub struct Shield<F: Future> {
        #[pin]
        place: Place<F>,
    }
}

pin_project! {
    /// Where the work runs.
    #[project = PlaceProj]
    enum Place<F: Future> {
        /// As a task of the runner.
        Apart { output: oneshot::Receiver<thread::Result<F::Output>> },
        /// In this future, as no runner takes it.
        Here { #[pin] future: F },
    }
}

/// Shielded work was aborted before it had an output: by
/// [`Runner::cancel`](crate::Runner::cancel), at the end of a shutdown's grace period, or because
/// its runtime shut down.
///
/// As an axum response this is a 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShieldAborted;

impl BackgroundTasks {
    /// Starts `future` at once, and returns a future for its output. If the handler is dropped
    /// meanwhile, because its client disconnects or a timeout expires, the work continues.
    ///
    /// When a client disconnects, the server drops its handler at whatever await point it has
    /// reached. Put work that must not stop half-way in here. For whole handlers, use
    /// [`BackgroundTasksLayer::detached`](crate::BackgroundTasksLayer::detached).
    ///
    /// The work is a task of the runner: it is counted and listed, a shutdown waits for it, and a
    /// shutdown's report names it. Its name is the type name of `future`;
    /// [`shield_named`](Self::shield_named) sets another. It is still a part of its handler. So
    /// the runner's limits and timeout do not apply, and its log lines are within the request's
    /// span. In it, [`current`](Self::current) returns the queue on which this was called.
    ///
    /// Tasks that the work adds to the request's queue wait for the response, as all others do. If
    /// the client has disconnected, there is no response, and they are skipped. If something must
    /// happen once the work is done, make it a part of the work, or give its task the condition
    /// `run_if(|_| true)`.
    ///
    /// The future runs in place, and is dropped with the [`Shield`], in these cases: on a
    /// stand-alone queue, on a runner that only [records](crate::Runner::recording), and once the
    /// runner has shut down.
    ///
    /// If the work panics, the task ends [`Panicked`](crate::TaskEnd::Panicked), and the panic
    /// resumes in the caller that awaits the [`Shield`].
    ///
    /// ```
    /// use tower_background_tasks::{BackgroundTasks, ShieldAborted};
    ///
    /// async fn charge(cents: u64) -> u64 { cents }
    /// async fn book(_charged: u64) {}
    ///
    /// async fn pay(tasks: BackgroundTasks) -> Result<String, ShieldAborted> {
    ///     let charged = tasks
    ///         .shield(async {
    ///             let charged = charge(100).await;
    ///             book(charged).await; // also if the client leaves here
    ///             charged
    ///         })
    ///         .await?;
    ///     Ok(format!("paid {charged}"))
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # assert_eq!(pay(BackgroundTasks::new()).await.unwrap(), "paid 100");
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Awaiting the [`Shield`] returns an error when the work was aborted.
    ///
    /// # Panics
    ///
    /// Awaiting the [`Shield`] panics if the work has panicked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the [`Shield`], polled or not, does not stop work that runs on a runner.
    #[track_caller]
    pub fn shield<F>(&self, future: F) -> Shield<F>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let name = without_closures(type_name::<F>());
        self.start(name.into(), Location::caller(), future)
    }

    /// Like [`shield`](Self::shield), with a name for logs and reports.
    ///
    /// ```
    /// # use tower_background_tasks::{BackgroundTasks, ShieldAborted};
    /// # async fn handler(tasks: BackgroundTasks) -> Result<(), ShieldAborted> {
    /// let number = tasks.shield_named("save-order", async { 7 }).await?;
    /// # assert_eq!(number, 7);
    /// # Ok(())
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() { handler(BackgroundTasks::new()).await.unwrap() }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`shield`](Self::shield).
    ///
    /// # Panics
    ///
    /// As for [`shield`](Self::shield).
    ///
    /// # Cancel safety
    ///
    /// As for [`shield`](Self::shield).
    #[track_caller]
    pub fn shield_named<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> Shield<F>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.start(name.into(), Location::caller(), future)
    }

    fn start<F>(
        &self,
        name: Cow<'static, str>,
        location: &'static Location<'static>,
        future: F,
    ) -> Shield<F>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let mut own = Some(Arc::clone(self.queue()));
        let entering = |future: F| async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                let _entered = Entered::new(&mut own);
                future.as_mut().poll(cx)
            })
            .await
        };
        Shield::start(self.queue(), name, location, future, entering)
    }
}

impl<F> Shield<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Starts the future that `prepare` makes of `future`, if a runner takes it.
    pub(super) fn start<P>(
        queue: &Arc<Queue>,
        name: Cow<'static, str>,
        location: &'static Location<'static>,
        future: F,
        prepare: impl FnOnce(F) -> P,
    ) -> Self
    where
        P: Future<Output = F::Output> + Send + 'static,
    {
        let Some(shielded) = queue.shielded() else {
            let place = Place::Here { future };
            return Self { place };
        };
        let (sender, output) = oneshot::channel();
        let work = work(prepare(future), TaskSpan::current(), sender);
        // If the runner refuses the task at this moment, the task is dropped with its sender. The
        // [`Shield`] then returns [`ShieldAborted`].
        let _ = shielded.add(Task::new(work).named(name), location);
        let place = Place::Apart { output };
        Self { place }
    }
}

/// Runs `future` and passes its output, or its panic, to the [`Shield`].
async fn work<F: Future>(
    future: F,
    span: TaskSpan,
    sender: oneshot::Sender<thread::Result<F::Output>>,
) {
    let finished = {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let poll = || span.in_scope(|| future.as_mut().poll(cx));
            match catch_unwind(AssertUnwindSafe(poll)) {
                Ok(polled) => polled.map(Ok),
                Err(payload) => Poll::Ready(Err(payload)),
            }
        })
        .await
    };
    let message = finished
        .as_ref()
        .err()
        .map(|payload| message_of(&**payload));
    let sent = contain(|| sender.send(finished)); // this wakes the awaiter
    drop(sent); // if nobody awaits, this holds the output
    if let Some(message) = message {
        resume_unwind(Box::new(message)); // so that the task ends panicked
    }
}

impl<F: Future> Future for Shield<F> {
    type Output = Result<F::Output, ShieldAborted>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().place.project() {
            PlaceProj::Here { future } => future.poll(cx).map(Ok),
            PlaceProj::Apart { output } => match ready!(Pin::new(output).poll(cx)) {
                Ok(Ok(output)) => Poll::Ready(Ok(output)),
                Ok(Err(payload)) => resume_unwind(payload),
                Err(_) => Poll::Ready(Err(ShieldAborted)),
            },
        }
    }
}

impl<F: Future> fmt::Debug for Shield<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield").finish_non_exhaustive()
    }
}

impl fmt::Display for ShieldAborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the shielded work was aborted: by a `cancel`, at the end of a shutdown's grace period, \
             or with its runtime",
        )
    }
}

impl Error for ShieldAborted {}
