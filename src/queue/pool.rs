//! Queues whose request is over, kept by each thread for the next: it saves most requests an allocation and its initialisation.

use std::{cell::RefCell, sync::Arc};

use crate::queue::Queue;

/// A thread keeps so many: as many requests as it may well have in its hands at once. None in a model, where each execution starts
/// anew.
const KEPT: usize = if cfg!(all(test, background_tasks_loom)) {
    0
} else {
    64
};

thread_local! {
    static SPARE: RefCell<Vec<Arc<Queue>>> = const { RefCell::new(Vec::new()) };
}

/// A queue that is as good as new, and nobody else's.
#[inline]
pub(crate) fn take() -> Option<Arc<Queue>> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
    spare.ok().flatten()
}

/// Keeps a queue, if there is room. It is as good as new, and nobody else's.
#[inline]
pub(crate) fn keep(queue: Arc<Queue>) {
    // In a thread that is ending there is no place any more.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < KEPT {
            spare.push(queue);
        }
    });
}
