//! [`Overdue`]: blocking tasks that have timed out, and whose threads go on. They have ended, and hold a thread, a place under the limits
//! and the end of the process all the same: so they are named until they return.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    TaskId, TaskInfo,
    queue::Queue,
    queue::current::{Key, info},
    task::Label,
    util::sync::{Mutex, lock},
};

#[derive(Default)]
pub(crate) struct Overdue {
    tasks: Mutex<BTreeMap<TaskId, Task>>,
}

struct Task {
    label: Label,
    begun: Option<Instant>,
    queue: Arc<Queue>,
}

/// Shared by a blocking task's thread and by who waits for it.
#[derive(Clone, Default)]
pub(crate) struct Thread {
    has_returned: Arc<Mutex<bool>>,
}

impl Thread {
    /// The task has timed out: it is overdue from now on, unless it has just returned.
    pub(crate) fn timed_out(&self, queue: &Arc<Queue>, key: Key) {
        let (Some(runner), Some((label, begun))) = (queue.runner(), queue.begun(key)) else {
            return;
        };
        let has_returned = lock(&self.has_returned);
        if !*has_returned {
            let queue = Arc::clone(queue);
            let task = Task {
                label,
                begun,
                queue,
            };
            lock(&runner.overdue().tasks).insert(task.label.id, task);
        }
    }

    /// The task has returned.
    pub(crate) fn returned(&self, queue: &Queue, key: Key) {
        let mut has_returned = lock(&self.has_returned);
        *has_returned = true;
        let task = queue
            .runner()
            .map(|runner| lock(&runner.overdue().tasks).remove(&key.id()));
        drop(has_returned);
        drop(task);
    }
}

impl Overdue {
    pub(crate) fn infos(&self, now: Instant) -> Vec<TaskInfo> {
        let tasks = lock(&self.tasks);
        let info = |task: &Task| TaskInfo {
            is_overdue: true,
            ..info(&task.label, task.begun, task.queue.request(), now)
        };
        tasks.values().map(info).collect()
    }
}
