//! All tasks of a runner: their rows in a report, and aborting them.

use tokio::time::Instant;

use super::{Queue, claim::Claim, owner::Owner};
use crate::{
    observe::info::{TaskInfo, in_order},
    task::{end::TaskEnd, id::TaskId},
    util::sync::lock,
};

impl Owner {
    /// Returns a row for each task, in the order added.
    pub(crate) fn infos(&self) -> Vec<TaskInfo> {
        let (mut rows, now) = (Vec::new(), Instant::now());
        for queue in self.queues.entries() {
            let mut next = Some(queue);
            while let Some(queue) = next {
                next = queue.infos(now, &mut rows);
            }
        }
        in_order(rows)
    }

    /// Admits no task from now on. When this returns, every admitted task has been counted,
    /// because the thread that admits a task holds the queue's lock until it has counted it.
    pub(crate) fn close(&self) {
        self.queues.close();
        for queue in self.queues.entries() {
            drop(lock(&queue.state));
        }
    }

    /// Aborts a task. Returns false if no task has this id, or if the task cannot be stopped.
    pub(crate) fn cancel(&self, id: TaskId) -> bool {
        let queues = self.queues.entries();
        let found = queues.iter().find_map(|queue| queue.cancel(id));
        found.unwrap_or(false)
    }

    /// Aborts every unfinished task and records its row. Returns the claims for which `spare`
    /// returns true. The caller ends those tasks.
    pub(crate) fn abort_all(&self, spare: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        // Tasks are claimed and recorded under one lock, and their ends are reported afterwards.
        // So a concurrent call finds either a task or its row.
        let mut unfinished = lock(&self.shared.unfinished);
        let (queues, now) = (self.queues.entries(), Instant::now());
        let claims = queues.iter().flat_map(Queue::claim_all);
        let (spared, aborted): (Vec<_>, Vec<_>) = claims.partition(spare);
        unfinished
            .aborted
            .extend(aborted.iter().map(|claim| claim.info(now)));
        drop(unfinished);
        for claim in aborted {
            claim.tell(&TaskEnd::Aborted);
        }
        spared
    }
}
