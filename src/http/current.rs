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

pub(crate) fn current() -> Option<BackgroundTasks> {
    let queue = CURRENT.try_with(|current| {
        let queue = current.take();
        current.set(queue.clone());
        queue
    });
    queue.ok().flatten().map(BackgroundTasks::from)
}
