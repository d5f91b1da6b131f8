//! Aborting one task.

use std::sync::Arc;

use super::{Queue, claim::Claim};
use crate::{
    task::{end::TaskEnd, id::TaskId, kind::TaskKind},
    util::sync::lock,
};

impl Queue {
    /// Aborts a task. Returns `None` if neither this queue nor one that it was merged into holds
    /// the task. Returns `Some(false)` if another party has claimed the end, or if a blocking task
    /// runs: its thread cannot be stopped.
    pub(super) fn cancel(self: &Arc<Self>, id: TaskId) -> Option<bool> {
        let mut state = lock(&self.state);
        let claim = match state.entries.get_mut(id) {
            Some(entry) if entry.label.kind == TaskKind::Blocking && entry.begun.is_some() => None,
            Some(entry) => Claim::of_entry(self, entry),
            None => match state.tasks.remove(id) {
                Some(task) => {
                    self.no_longer_await(&state, 1);
                    Some(Claim::of_waiting(self, &mut state, task))
                }
                None => {
                    // A release may have moved the task after the registry was read.
                    let into = state.merged_into()?;
                    drop(state);
                    return into.cancel(id);
                }
            },
        };
        drop(state);
        let is_ours = claim.is_some();
        if let Some(claim) = claim {
            claim.tell(&TaskEnd::Aborted);
        }
        Some(is_ours)
    }
}
