//! [`JobStore`]: where jobs are kept until a worker runs them.

use std::{
    any::Any,
    future::{poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use crate::{
    BoxError, DuplicateJob, JobId, StoredJob, UnsupportedByStore,
    util::contain::{contain, contain_drop},
    util::panic::TaskPanic,
    util::timer::elapse,
};

/// What [`JobStore::push`] returns.
pub type PushFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// Keeps jobs: a queue in a database, or on a broker. [`ApalisStore`](crate::ApalisStore) is a
/// store over any backend of apalis.
///
/// Serialised, a [`StoredJob`] is all that a worker needs. The options of
/// [`Job::after`](crate::Job::after), [`priority`](crate::Job::priority) and
/// [`unique`](crate::Job::unique) are not in it: a store reads them, and refuses a job whose option it
/// does not have.
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
    /// The future returns an error when the job is not kept: a [`DuplicateJob`] if another has its
    /// key, and an [`UnsupportedByStore`] for an option that this store does not have.
    fn push(&self, job: StoredJob) -> PushFuture<'_>;

    /// Keeps a job by the caller's connection or transaction, for
    /// [`add_job_in`](crate::BackgroundTasks::add_job_in). By default that is an
    /// [`UnsupportedByStore`].
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push). A connection that is not the store's own is an
    /// [`UnsupportedByStore`], too.
    fn push_in<'a>(
        &'a self,
        connection: &'a mut (dyn Any + Send),
        job: StoredJob,
    ) -> PushFuture<'a> {
        let _ = (connection, job);
        let error =
            UnsupportedByStore::new("`add_job_in` needs a `PostgresStore` or a `SqliteStore`");
        Box::pin(ready(Err(error.into())))
    }

    /// Has a job wait until `time`, if it fails: for [`Jobs::retry`](crate::Jobs::retry). The job
    /// still runs, and its worker has not told this store of the failure. By default that is an
    /// [`UnsupportedByStore`].
    ///
    /// # Errors
    ///
    /// The future returns an error when the job is not postponed.
    fn postpone(&self, id: JobId, time: SystemTime) -> PushFuture<'_> {
        let _ = (id, time);
        let error = UnsupportedByStore::new(
            "`retry` needs a `PostgresStore`, a `SqliteStore`, or one's own",
        );
        Box::pin(ready(Err(error.into())))
    }
}

/// A connection of another kind than the store's.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn not_its_connection(own: &str) -> PushFuture<'static> {
    let error = UnsupportedByStore::new(format!("the store's connections are {own}"));
    Box::pin(ready(Err(error.into())))
}

impl<S: JobStore + ?Sized> JobStore for Box<S> {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        (**self).push(job)
    }

    fn push_in<'a>(
        &'a self,
        connection: &'a mut (dyn Any + Send),
        job: StoredJob,
    ) -> PushFuture<'a> {
        (**self).push_in(connection, job)
    }

    fn postpone(&self, id: JobId, time: SystemTime) -> PushFuture<'_> {
        (**self).postpone(id, time)
    }
}

impl<S: JobStore + ?Sized> JobStore for Arc<S> {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        (**self).push(job)
    }

    fn push_in<'a>(
        &'a self,
        connection: &'a mut (dyn Any + Send),
        job: StoredJob,
    ) -> PushFuture<'a> {
        (**self).push_in(connection, job)
    }

    fn postpone(&self, id: JobId, time: SystemTime) -> PushFuture<'_> {
        (**self).postpone(id, time)
    }
}

/// Why a store did not take a job.
pub(crate) enum PushError {
    Failed(BoxError),
    TimedOut(Duration),
    Duplicate(DuplicateJob),
    Unsupported(UnsupportedByStore),
}

impl PushError {
    /// Looks at what a store has answered.
    pub(super) fn of(error: BoxError) -> Self {
        let error = match error.downcast() {
            Ok(duplicate) => return Self::Duplicate(*duplicate),
            Err(error) => error,
        };
        match error.downcast() {
            Ok(unsupported) => Self::Unsupported(*unsupported),
            Err(error) => Self::Failed(error),
        }
    }
}

impl From<PushError> for BoxError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Failed(error) => error,
            PushError::TimedOut(limit) => format!("the store took more than {limit:?}").into(),
            PushError::Duplicate(error) => error.into(),
            PushError::Unsupported(error) => error.into(),
        }
    }
}

/// Pushes a job. A store is user code, and a panic in it counts as its failure.
pub(crate) async fn push(store: &dyn JobStore, job: StoredJob) -> Result<(), BoxError> {
    contained(|| store.push(job)).await
}

/// Pushes a job by the caller's connection.
pub(super) async fn push_in(
    store: &dyn JobStore,
    connection: &mut (dyn Any + Send),
    job: StoredJob,
) -> Result<(), BoxError> {
    contained(|| store.push_in(connection, job)).await
}

/// Has a job wait, if it fails.
#[cfg(feature = "apalis")]
pub(super) async fn postpone(
    store: &dyn JobStore,
    id: JobId,
    time: SystemTime,
) -> Result<(), BoxError> {
    contained(|| store.postpone(id, time)).await
}

async fn contained<'a>(push: impl FnOnce() -> PushFuture<'a>) -> Result<(), BoxError> {
    match contain(push) {
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
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(pushed)) => pushed,
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
        Poll::Ready(pushed) => Poll::Ready(pushed.map_err(PushError::of)),
        Poll::Pending => over
            .as_mut()
            .poll(cx)
            .map(|_| Err(PushError::TimedOut(limit))),
    })
    .await
}
