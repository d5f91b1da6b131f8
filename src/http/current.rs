//! The request whose handler runs on this thread: [`BackgroundTasks::current`].

use std::{cell::Cell, sync::Arc};

use crate::{BackgroundTasks, queue::Queue};

thread_local! {
    static CURRENT: Cell<Option<Arc<Queue>>> = const { Cell::new(None) };
}

/// While it lives, `queue` is the thread's current one, and what was current before is in its place.
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

/// Changing places costs no reference count. In a thread that is ending there is no place any more, and nothing changes.
#[inline]
fn swap(queue: &mut Option<Arc<Queue>>) {
    let _ = CURRENT.try_with(|current| *queue = current.replace(queue.take()));
}

impl BackgroundTasks {
    /// The queue of the request whose handler runs here: in the handler, and in whatever it awaits, without passing the queue
    /// through ten functions.
    ///
    /// `None` elsewhere: in what was spawned, in a body that is streamed when the handler has returned, in a task on the runner, in
    /// destructors when the client has left and the handler is dropped unfinished, and where there is no
    /// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer). Code that runs there takes the queue along, which is a clone. Of nested
    /// layers it is the inner one's.
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
        queue.ok().flatten().map(Self::from)
    }
}
