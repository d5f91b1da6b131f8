//! A recording runner: its tasks end as they are added, and none runs. Keeps the promise "nothing
//! disappears" for them.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Queue, State, owner::Owner, task_list::TaskList};
use crate::{
    observe::info::TaskInfo,
    task::{
        Task,
        end::{SkipReason, TaskEnd},
        id::TaskId,
    },
    util::sync::{MutexGuard, lock},
};

const RECORDED: TaskEnd = TaskEnd::Skipped(SkipReason::Recorded);

impl Owner {
    pub(crate) fn is_recording(&self) -> bool {
        self.shared.settings.recording
    }

    /// Returns a row for each recorded task, in the order recorded. Empty for any other runner.
    pub(crate) fn recorded(&self) -> Vec<TaskInfo> {
        lock(&self.shared.recorded).clone()
    }

    pub(super) fn record(&self, task: TaskInfo) {
        lock(&self.shared.recorded).push(task);
    }
}

impl Queue {
    /// Records a task that never enters the queue.
    #[cold]
    pub(super) fn record(&self, task: Task) -> TaskId {
        self.end_at_once(task, &RECORDED)
    }

    /// Records the tasks of a stand-alone queue.
    pub(super) fn record_all(&self, mut tasks: TaskList) {
        while let Some(task) = tasks.pop() {
            self.record(task);
        }
    }

    /// Records the tasks of a held queue that is released. The caller has set the phase.
    pub(super) fn record_waiting(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let claims = self.claim_waiting(&mut state);
        drop(state);
        if let Some(owner) = &self.owner {
            let now = Instant::now();
            claims
                .iter()
                .for_each(|claim| owner.record(claim.info(now)));
        }
        for claim in claims {
            claim.tell(&RECORDED); // a destructor may add more
        }
    }
}
