//! [`Dequeued`]: a task whose turn has come.

use crate::task::{Task, id::TaskId, node::Needs};

/// A task that waits for what it needs. The queue has the task, so that it can be dropped there.
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
