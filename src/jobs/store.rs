//! [`JobStore`]: keeps jobs until a worker runs them.

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

/// The future that each method of a [`JobStore`] returns.
pub type PushFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// Keeps jobs until a worker runs them: a queue in a database or on a broker.
/// [`ApalisStore`](crate::ApalisStore) is a store over any backend of apalis.
///
/// A worker needs only the serialised [`StoredJob`]. The options of
/// [`Job::after`](crate::Job::after), [`priority`](crate::Job::priority) and
/// [`unique`](crate::Job::unique) are not serialised. The store applies them, and refuses a job
/// with an option that it does not support.
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
    /// Stores a job. The future resolves when the job is stored and a worker will find it.
    ///
    /// The runner may drop the future before it resolves, for example after
    /// [`RunnerBuilder::job_store_timeout`](crate::RunnerBuilder::job_store_timeout). The store
    /// may or may not have the job then.
    ///
    /// # Errors
    ///
    /// The future returns an error when the job is not stored. It returns a [`DuplicateJob`] if
    /// another job has the key, and an [`UnsupportedByStore`] for an option that is not supported.
    fn push(&self, job: StoredJob) -> PushFuture<'_>;

    /// Stores a job through the caller's connection or transaction, for
    /// [`add_job_in`](crate::BackgroundTasks::add_job_in). The default implementation stores
    /// nothing, and returns an [`UnsupportedByStore`].
    ///
    /// # Errors
    ///
    /// The future returns the errors of [`push`](Self::push). It also returns an
    /// [`UnsupportedByStore`] if the connection is not of the store's type.
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

    /// Sets the earliest time of a failed job's next attempt, for
    /// [`Jobs::retry`](crate::Jobs::retry). The worker calls this before it reports the failure,
    /// so the store still counts the job as running. The default implementation postpones nothing,
    /// and returns an [`UnsupportedByStore`].
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

/// Returns the error of a job that was not inserted, as the job of this id has its key.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn duplicate_of(holder: Option<String>) -> BoxError {
    DuplicateJob::of(holder.and_then(|id| id.parse().ok())).into()
}

/// Checks that the statement which postpones a job has found it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn postponed(id: JobId, rows: u64) -> Result<(), BoxError> {
    match rows {
        0 => Err(format!("the store has no task of the id {id}").into()),
        _ => Ok(()),
    }
}

/// Refuses a connection that is not of the store's own type.
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

/// Pushes a job. A store is user code: its panic is contained and becomes the error.
pub(crate) async fn push(store: &dyn JobStore, job: StoredJob) -> Result<(), BoxError> {
    contained(|| store.push(job)).await
}

pub(super) async fn push_in(
    store: &dyn JobStore,
    connection: &mut (dyn Any + Send),
    job: StoredJob,
) -> Result<(), BoxError> {
    contained(|| store.push_in(connection, job)).await
}

/// Postpones a failed job, and waits for the store no longer than `limit`.
#[cfg(feature = "apalis")]
pub(super) async fn postpone(
    store: &dyn JobStore,
    id: JobId,
    time: SystemTime,
    limit: Duration,
) -> Result<(), BoxError> {
    let answer = contained(|| store.postpone(id, time));
    Ok(within(limit, answer).await?)
}

async fn contained<'a>(push: impl FnOnce() -> PushFuture<'a>) -> Result<(), BoxError> {
    match contain(push) {
        Ok(push) => Push(Some(push)).await,
        Err(panic) => Err(panicked(&panic)),
    }
}

/// A push whose panics are contained. It is `None` once the store has answered.
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

/// Returns the text of a store's error. The error is user code, so its panics are contained.
pub(crate) fn text_of(error: BoxError) -> String {
    let text = contain(|| error.to_string());
    let _ = contain_drop(error);
    text.unwrap_or_else(|message| format!("an error that panicked: {message}"))
}

/// Pushes a job, and waits for the store no longer than `limit`.
pub(crate) async fn push_within(
    store: &dyn JobStore,
    job: StoredJob,
    limit: Duration,
) -> Result<(), PushError> {
    within(limit, push(store, job)).await
}

/// Waits for a store's answer no longer than `limit`.
async fn within(
    limit: Duration,
    answer: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), PushError> {
    let (mut answer, mut over) = (pin!(answer), pin!(elapse(limit)));
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer.map_err(PushError::of)),
        Poll::Pending => over
            .as_mut()
            .poll(cx)
            .map(|_| Err(PushError::TimedOut(limit))),
    })
    .await
}
