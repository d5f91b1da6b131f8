//! The tasks that wait, above all for something outside of the runner: their response's end, or a
//! release.

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
    /// How many of them wait for a release.
    pub(crate) held: usize,
}

impl Owner {
    /// Returns a row for each task that waits in an open queue.
    pub(crate) fn waiting(&self) -> Waiting {
        let (queues, now) = (self.queues.entries(), Instant::now());
        let (mut tasks, mut held) = (Vec::new(), 0);
        for queue in queues {
            let infos = queue.open_infos(now);
            if queue.is_held() {
                held += infos.len();
            }
            tasks.extend(infos);
        }
        let tasks = in_order(tasks);
        Waiting { tasks, held }
    }
}

impl Queue {
    /// Returns no rows unless the queue is open.
    fn open_infos(&self, now: Instant) -> Vec<TaskInfo> {
        let state = lock(&self.state);
        match state.phase {
            Phase::Open => self.waiting_infos(&state, now),
            _ => Vec::new(),
        }
    }

    pub(super) fn waiting_infos(&self, state: &State, now: Instant) -> Vec<TaskInfo> {
        let (labels, request) = (state.tasks.labels(), self.request.as_ref());
        let info = |label| TaskInfo::new(label, None, request, now);
        labels.iter().map(info).collect()
    }

    /// Returns a row for each waiting task, in the order added. Returns `None` if the runner records
    /// them instead.
    pub(crate) fn waiting(self: &Arc<Self>) -> Option<Vec<TaskInfo>> {
        let root = self.root();
        let state = lock(&root.state);
        let is_recording = matches!(state.phase, Phase::Recording);
        (!is_recording).then(|| root.waiting_infos(&state, Instant::now()))
    }
}
