//! [`BackgroundTasks::current`]: the queue of the handler that runs on this thread.

use std::{cell::Cell, sync::Arc};

use crate::{BackgroundTasks, queue::Queue};

thread_local! {
    static CURRENT: Cell<Option<Arc<Queue>>> = const { Cell::new(None) };
}

/// While this lives, `queue` is the thread's current queue, and the reference holds the previous
/// one.
pub(crate) struct Entered<'a>(&'a mut Option<Arc<Queue>>);

impl<'a> Entered<'a> {
    #[inline]
    pub(crate) fn new(queue: &'a mut Option<Arc<Queue>>) -> Self {
        swap(queue);
        Self(queue)
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        swap(self.0);
    }
}

/// Swaps `queue` with the thread's current queue, without a reference count. On a thread that is
/// ending, this does nothing.
#[inline]
fn swap(queue: &mut Option<Arc<Queue>>) {
    let _ = CURRENT.try_with(|current| *queue = current.replace(queue.take()));
}

impl BackgroundTasks {
    /// Returns the queue of the request whose handler is running on this thread. The handler, and
    /// all that it awaits, can call this instead of passing the queue down.
    ///
    /// Returns `None` elsewhere:
    ///
    /// - in a spawned task,
    /// - in a body that streams after the handler has returned,
    /// - in a task on the runner,
    /// - in destructors, if the client disconnects and the handler is dropped unfinished,
    /// - without a [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
    ///
    /// Code that runs in these places needs a clone of the queue. With nested layers, this returns
    /// the inner one's queue.
    ///
    /// ```
    /// use tower_background_tasks::BackgroundTasks;
    ///
    /// /// Called by handlers, ten functions deep.
    /// async fn save_order() {
    ///     if let Some(tasks) = BackgroundTasks::current() {
    ///         tasks.add_task(async { println!("reindex") });
    ///     }
    /// }
    /// # assert!(BackgroundTasks::current().is_none());
    /// # drop(save_order());
    /// ```
    pub fn current() -> Option<Self> {
        let queue = CURRENT.try_with(|current| {
            let queue = current.take();
            current.set(queue.clone());
            queue
        });
        queue.ok().flatten().map(Self::of)
    }
}
