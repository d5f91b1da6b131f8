//! Lists waiting tasks, above all those that wait for something outside the runner: the end of
//! their response, or a release.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Phase, Queue, State, owner::Owner};
use crate::{
    observe::info::{TaskInfo, in_order},
    util::sync::lock,
};

/// Rows for the tasks of open queues.
#[derive(Default)]
pub(crate) struct Waiting {
    /// In the order added.
    pub(crate) tasks: Vec<TaskInfo>,
    /// How many of `tasks` wait for a release.
    pub(crate) held: usize,
}

impl Owner {
    /// Returns a row for each task that waits in an open queue.
    pub(crate) fn waiting(&self) -> Waiting {
        let (mut held, mut tasks, now) = (Vec::new(), Vec::new(), Instant::now());
        for queue in self.queues.entries() {
            let mut next = Some(queue);
            while let Some(queue) = next {
                let rows = if queue.is_held() {
                    &mut held
                } else {
                    &mut tasks
                };
                next = queue.open_infos(now, rows);
            }
        }
        let held = in_order(held);
        tasks.extend_from_slice(&held);
        Waiting {
            tasks: in_order(tasks),
            held: held.len(),
        }
    }
}

impl Queue {
    /// Adds a row for each waiting task if the queue is open. Returns the queue that this one was
    /// merged into, as [`infos`](Self::infos) does.
    fn open_infos(&self, now: Instant, rows: &mut Vec<TaskInfo>) -> Option<Arc<Self>> {
        let state = lock(&self.state);
        if matches!(state.phase, Phase::Open) {
            rows.extend(self.waiting_infos(&state, now));
        }
        state.merged_into()
    }

    pub(super) fn waiting_infos(&self, state: &State, now: Instant) -> Vec<TaskInfo> {
        self.first_waiting_infos(state, now, usize::MAX)
    }

    pub(super) fn first_waiting_infos(
        &self,
        state: &State,
        now: Instant,
        limit: usize,
    ) -> Vec<TaskInfo> {
        let (labels, request) = (state.tasks.first_labels(limit), self.request.as_ref());
        let info = |label| TaskInfo::new(label, None, request, now);
        labels.iter().map(info).collect()
    }

    /// Returns a row for each waiting task, in the order added. Returns `None` if the runner
    /// records tasks instead.
    pub(crate) fn waiting(self: &Arc<Self>) -> Option<Vec<TaskInfo>> {
        let root = self.root();
        let state = lock(&root.state);
        let is_recording = matches!(state.phase, Phase::Recording);
        (!is_recording).then(|| root.waiting_infos(&state, Instant::now()))
    }
}
