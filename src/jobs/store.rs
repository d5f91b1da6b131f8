//! [`JobStore`]: where jobs are kept until a worker runs them.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::{
    BoxError, StoredJob,
    util::contain::{contain, contain_drop},
    util::panic::TaskPanic,
    util::timer::elapse,
};

/// What [`JobStore::push`] returns.
pub type PushFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// Keeps jobs: a queue in a database, or on a broker. [`ApalisStore`](crate::ApalisStore) is a
/// store over any backend of apalis.
///
/// ```
/// use std::sync::Mutex;
/// use tower_background_tasks::{JobStore, PushFuture, StoredJob};
///
/// #[derive(Default)]
/// struct InMemory(Mutex<Vec<StoredJob>>);
///
/// impl JobStore for InMemory {
///     fn push(&self, job: StoredJob) -> PushFuture<'_> {
///         Box::pin(async move {
///             self.0.lock().unwrap().push(job);
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait JobStore: Send + Sync + 'static {
    /// Keeps a job. The future resolves when the job is kept, and a worker will find it.
    ///
    /// The future may be dropped when it takes longer than
    /// [`RunnerBuilder::job_store_timeout`](crate::RunnerBuilder::job_store_timeout). The store may
    /// or may not have kept the job then.
    ///
    /// # Errors
    ///
    /// The future returns an error when the job is not kept.
    fn push(&self, job: StoredJob) -> PushFuture<'_>;
}

impl<S: JobStore + ?Sized> JobStore for Box<S> {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        (**self).push(job)
    }
}

impl<S: JobStore + ?Sized> JobStore for Arc<S> {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        (**self).push(job)
    }
}

/// Why a store did not take a job.
pub(crate) enum PushError {
    Failed(BoxError),
    TimedOut(Duration),
}

/// Pushes a job. A store is user code, and a panic in it counts as its failure.
pub(crate) async fn push(store: &dyn JobStore, job: StoredJob) -> Result<(), BoxError> {
    match contain(|| store.push(job)) {
        Ok(push) => Push(Some(push)).await,
        Err(panic) => Err(panicked(&panic)),
    }
}

/// A push that has not been answered; `None` once it has. A panic in its destructor changes
/// nothing.
struct Push<'a>(Option<PushFuture<'a>>);

impl Future for Push<'_> {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(push) = &mut self.0 else {
            return Poll::Pending;
        };
        let pushed = match contain(|| push.as_mut().poll(cx)) {
            Ok(polled) => ready!(polled),
            Err(panic) => Err(panicked(&panic)),
        };
        let _ = contain_drop(self.0.take());
        Poll::Ready(pushed)
    }
}

impl Drop for Push<'_> {
    fn drop(&mut self) {
        let _ = contain_drop(self.0.take());
    }
}

fn panicked(panic: &TaskPanic) -> BoxError {
    format!("the store panicked: {panic}").into()
}

/// Returns the text of a store's error. The error is user code, too.
pub(crate) fn text_of(error: BoxError) -> String {
    let text = contain(|| error.to_string());
    let _ = contain_drop(error);
    text.unwrap_or_else(|message| format!("an error that panicked: {message}"))
}

/// Pushes a job, and waits no longer than `limit`.
pub(crate) async fn push_within(
    store: &dyn JobStore,
    job: StoredJob,
    limit: Duration,
) -> Result<(), PushError> {
    let (mut push, mut over) = (pin!(push(store, job)), pin!(elapse(limit)));
    poll_fn(|cx| match push.as_mut().poll(cx) {
        Poll::Ready(pushed) => Poll::Ready(pushed.map_err(PushError::Failed)),
        Poll::Pending => over
            .as_mut()
            .poll(cx)
            .map(|_| Err(PushError::TimedOut(limit))),
    })
    .await
}
