//! [`Dequeued`]: a task that has left the list and waits to begin.

use crate::task::{Task, id::TaskId, node::Needs};

/// The queue keeps the task itself, so that a canceller can drop it.
#[derive(Debug)]
pub(crate) struct Dequeued {
    pub(crate) id: TaskId,
    pub(crate) needs: Needs,
}

impl Dequeued {
    pub(super) fn of(task: &Task) -> Self {
        Self {
            id: task.id(),
            needs: task.needs(),
        }
    }
}
