//! Rows for a limited number of a runner's tasks. The dashboard's page shows no more.

use tokio::time::Instant;

use super::{Queue, entries::Entry, owner::Owner};
use crate::{
    observe::info::{TaskInfo, in_order},
    util::sync::lock,
};

/// Up to `limit` rows of each kind.
struct FirstRows {
    limit: usize,
    running: Vec<TaskInfo>,
    waiting: Vec<TaskInfo>,
}

impl Owner {
    /// Returns up to `limit` rows: running tasks, then waiting ones, each in the order added. If
    /// there are more tasks, the rows are not always the oldest.
    pub(crate) fn first_infos(&self, limit: usize) -> Vec<TaskInfo> {
        let now = Instant::now();
        let mut rows = FirstRows {
            limit,
            running: Vec::new(),
            waiting: Vec::new(),
        };
        for queue in self.queues.entries() {
            queue.first_infos(now, &mut rows);
        }
        let mut first = in_order(rows.running);
        first.extend(in_order(rows.waiting));
        first.truncate(limit);
        first
    }
}

impl Queue {
    fn first_infos(&self, now: Instant, rows: &mut FirstRows) {
        let state = lock(&self.state);
        for entry in state.entries.iter() {
            if rows.is_full() {
                return;
            }
            let (limit, of_kind) = (rows.limit, rows.of(entry));
            if of_kind.len() < limit {
                of_kind.push(entry.info(self.request.as_ref(), now));
            }
        }
        let left = rows.limit.saturating_sub(rows.waiting.len());
        if left > 0 {
            let waiting = self.first_waiting_infos(&state, now, left);
            rows.waiting.extend(waiting);
        }
    }
}

impl FirstRows {
    /// True if the running tasks fill the page. Rows of waiting tasks would not be shown.
    fn is_full(&self) -> bool {
        self.running.len() >= self.limit
    }

    /// Returns the rows of this entry's kind.
    fn of(&mut self, entry: &Entry) -> &mut Vec<TaskInfo> {
        match entry.begun {
            Some(_) => &mut self.running,
            None => &mut self.waiting,
        }
    }
}
