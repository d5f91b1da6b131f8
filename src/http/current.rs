//! The request whose handler runs on this thread: [`BackgroundTasks::current`].

use std::{cell::Cell, sync::Arc};

use crate::{BackgroundTasks, queue::Queue};

thread_local! {
    static CURRENT: Cell<Option<Arc<Queue>>> = const { Cell::new(None) };
}

/// While this lives, `queue` is the thread's current queue. The reference holds the one that was
/// current before.
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

/// The swap costs no reference count. A thread that is ending has no slot any more, and nothing
/// changes.
#[inline]
fn swap(queue: &mut Option<Arc<Queue>>) {
    let _ = CURRENT.try_with(|current| *queue = current.replace(queue.take()));
}

impl BackgroundTasks {
    /// Returns the queue of the request whose handler runs here. The handler and all that it awaits
    /// find it, without passing the queue through ten functions.
    ///
    /// Returns `None` elsewhere:
    ///
    /// - in a spawned task,
    /// - in a body that streams after the handler has returned,
    /// - in a task on the runner,
    /// - in destructors, if the client has left and the handler is dropped unfinished,
    /// - without a [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
    ///
    /// Code that runs there takes a clone of the queue along. Of nested layers, the inner one's
    /// queue is returned.
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
