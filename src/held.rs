//! [`Held`]: tasks that wait for a commit. Keeps the promise "nothing disappears" for those that are
//! not released.
//!
//! It uses the handle [`BackgroundTasks`] and `queue`.

use std::{ops::Deref, sync::Arc};

use crate::{BackgroundTasks, queue::Queue};

/// Tasks that wait until they are released, from [`BackgroundTasks::hold`].
///
/// It derefs to a [`BackgroundTasks`], which adds to what is held.
#[derive(Debug)]
#[must_use = "held tasks run only if they are released: dropped, they are skipped"]
pub struct Held {
    tasks: BackgroundTasks,
    into: Arc<Queue>,
    is_released: bool,
}

impl BackgroundTasks {
    /// Holds the tasks that are added to what this returns, until [`Held::release`].
    ///
    /// Dropped without it, by `?`, a panic, a client that leaves or a timeout, they end
    /// [`Skipped`](crate::TaskEnd::Skipped) with the reason
    /// [`NotReleased`](crate::SkipReason::NotReleased). So nothing of a rolled-back transaction is
    /// ever sent. Held tasks have their numbers at once, are counted and listed, and may be refused
    /// at once. Those of a [stand-alone queue](BackgroundTasks::new) are counted only when they come to
    /// a runner. What this returns can be held again. A task
    /// that is held twice runs only if both are released, in either order.
    ///
    /// A client that leaves during the commit drops the handler there, and nobody knows what became
    /// of the commit. Behind [`detached`](crate::BackgroundTasksLayer::detached), the handler goes
    /// on, and releases.
    ///
    /// A clone of what is held adds to it. Returned with a response, it does not release it.
    ///
    /// A job that is held goes to a `RunnerBuilder::job_store` only once it is released: see `add_job`.
    ///
    /// ```
    /// # use tower_background_tasks::{BackgroundTasks, BoxError};
    /// # struct Transaction;
    /// # impl Transaction {
    /// #     async fn insert(&self, _: &str) -> Result<u64, BoxError> { Ok(7) }
    /// #     async fn commit(self) -> Result<(), BoxError> { Ok(()) }
    /// # }
    /// # async fn send_receipt(_: u64) {}
    /// async fn order(tasks: BackgroundTasks, tx: Transaction) -> Result<(), BoxError> {
    ///     let held = tasks.hold();
    ///     let number = tx.insert("order").await?;
    ///     held.add_task(send_receipt(number));
    ///     tx.commit().await?; // on an error nothing is sent
    ///     held.release();
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let tasks = BackgroundTasks::new();
    /// order(tasks.clone(), Transaction).await.unwrap();
    /// assert_eq!(tasks.len(), 1);
    /// # }
    /// ```
    pub fn hold(&self) -> Held {
        let held = self.queue().held();
        Held {
            tasks: BackgroundTasks::of(held),
            into: Arc::clone(self.queue()),
            is_released: false,
        }
    }
}

impl Held {
    /// Queues the held tasks, in their order, behind those that are queued already.
    ///
    /// If the response has ended, they start at once. A clone of the held handle adds to the request's
    /// queue from now on. Once a shutdown has closed the runner, they are not queued and end
    /// [`Aborted`](crate::TaskEnd::Aborted). Those that were held in a stand-alone queue end
    /// [`Rejected`](crate::TaskEnd::Rejected).
    pub fn release(mut self) {
        self.is_released = true;
        self.into.release(self.tasks.queue());
    }
}

impl Deref for Held {
    type Target = BackgroundTasks;

    fn deref(&self) -> &BackgroundTasks {
        &self.tasks
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_released {
            self.tasks.queue().discard();
        }
    }
}
