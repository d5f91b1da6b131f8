//! [`Held`]: tasks that wait for a commit. Keeps the promise "nothing disappears" for tasks that
//! are not released.
//!
//! It uses the handle [`BackgroundTasks`] and `queue`.

use std::{ops::Deref, sync::Arc};

use crate::{BackgroundTasks, queue::Queue};

/// Tasks that wait until they are released. Made by [`BackgroundTasks::hold`].
///
/// Dereferences to a [`BackgroundTasks`], which adds held tasks.
#[derive(Debug)]
#[must_use = "held tasks run only if they are released: dropped, they are skipped"]
pub struct Held {
    tasks: BackgroundTasks,
    into: Arc<Queue>,
    is_released: bool,
}

impl BackgroundTasks {
    /// Returns a [`Held`]. Tasks that are added to it, not to this queue, wait until
    /// [`Held::release`].
    ///
    /// Dropping the [`Held`] without a release skips its tasks
    /// ([`NotReleased`](crate::SkipReason::NotReleased)). A `?`, a panic, a timeout or a client
    /// that disconnects drops it. So no task of a rolled-back transaction runs.
    ///
    /// Held tasks get their ids, are counted and listed, and may be refused as soon as they are
    /// added. Those of a [stand-alone queue](BackgroundTasks::new) are counted only when they
    /// reach a runner. A [`Held`] can itself hold: a task that is held twice runs only if both are
    /// released, in either order.
    ///
    /// If a client disconnects during the commit, the handler is dropped there, and nothing knows
    /// whether the commit succeeded. Behind [`detached`](crate::BackgroundTasksLayer::detached),
    /// the handler continues and releases.
    ///
    /// A clone of the held [`BackgroundTasks`] adds held tasks. Returning the clone with a
    /// response does not release them.
    ///
    /// A held job goes to a `RunnerBuilder::job_store` only once it is released: see `add_job`.
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
    /// Queues the held tasks, in their order, behind the tasks that are already queued.
    ///
    /// If the response has ended, they start at once. From now on, a clone of the held handle adds
    /// to the request's queue. If a shutdown has closed the runner, the tasks are not queued and
    /// end [`Aborted`](crate::TaskEnd::Aborted). Tasks that were held in a stand-alone queue then
    /// end [`Rejected`](crate::TaskEnd::Rejected).
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
