//! Rows for some of a runner's tasks: a page shows no more, however many there are.

use tokio::time::Instant;

use super::{Queue, entries::Entry, owner::Owner};
use crate::{
    observe::info::{TaskInfo, in_order},
    util::sync::lock,
};

/// Up to `limit` rows of either kind.
struct FirstRows {
    limit: usize,
    running: Vec<TaskInfo>,
    waiting: Vec<TaskInfo>,
}

impl Owner {
    /// Returns up to `limit` rows: of tasks that run, and after those of tasks that wait. Each kind
    /// is in the order added, but where there are more, these are not always the first.
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
    /// No more rows of tasks that run: those of tasks that wait would not be shown.
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
