//! All tasks of a runner: named, and ended from outside.

use tokio::time::Instant;

use super::{Queue, claim::Claim, owner::Owner};
use crate::{
    observe::info::{TaskInfo, in_order},
    task::{end::TaskEnd, id::TaskId},
    util::sync::lock,
};

impl Owner {
    /// Rows for all tasks, those added first in front.
    pub(crate) fn infos(&self) -> Vec<TaskInfo> {
        let (queues, now) = (self.queues.entries(), Instant::now());
        in_order(queues.iter().flat_map(|queue| queue.infos(now)).collect())
    }

    /// Ends a task aborted. False where there is none of that number, or it cannot be stopped.
    pub(crate) fn cancel(&self, id: TaskId) -> bool {
        let queues = self.queues.entries();
        let found = queues.iter().find_map(|queue| queue.cancel(id));
        found.unwrap_or(false)
    }

    /// Ends what is left aborted, and names it; but for what `spare` holds for, which is the caller's to end.
    pub(crate) fn abort_all(&self, spare: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        // Claimed and named with the lock held, and told afterwards: another call of this finds either the tasks or their names.
        let mut left = lock(&self.shared.unfinished);
        let (queues, now) = (self.queues.entries(), Instant::now());
        let claims = queues.iter().flat_map(Queue::claim_all);
        let (spared, aborted): (Vec<_>, Vec<_>) = claims.partition(spare);
        left.aborted
            .extend(aborted.iter().map(|claim| claim.info(now)));
        drop(left);
        for claim in aborted {
            claim.tell(&TaskEnd::Aborted);
        }
        spared
    }
}
