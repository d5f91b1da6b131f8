//! [`Rules`]: how the runner of a case is set, and what happens in it.

use std::sync::Arc;

use tower_background_tasks::{Order, Runner, TaskReport};

use super::model::Model;
use crate::load::Random;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Handlers, tasks and others act on several threads at once.
    pub(super) is_threaded: bool,
    pub(super) is_concurrent: bool,
    pub(super) max_running: Option<usize>,
    pub(super) max_pending: Option<usize>,
    pub(super) is_observed: bool,
    /// Tasks have names, so that an observer tells one from another.
    pub(super) is_named: bool,
    /// Threads of the blocking pool, which no seed governs.
    pub(super) has_blocking: bool,
    pub(super) shuts_down: bool,
    pub(super) requests: u64,
    /// Others that have handles of those requests.
    pub(super) late: u64,
}

impl Rules {
    pub(super) fn random(random: &mut Random, is_threaded: bool) -> Self {
        let mut one_in = |count| random.below(count) == 0;
        let is_observed = !one_in(4);
        Self {
            is_threaded,
            is_concurrent: one_in(4),
            is_observed,
            is_named: is_observed && one_in(2),
            has_blocking: is_threaded && one_in(8),
            shuts_down: one_in(6),
            max_running: one_in(4).then(|| 1 + random.below(3) as usize),
            max_pending: (random.below(8) == 0).then(|| 2 + random.below(5) as usize),
            requests: 1 + random.below(2),
            late: random.below(3),
        }
    }

    pub(super) fn runner(&self, model: &Arc<Model>) -> Runner {
        let mut builder = Runner::builder().order(match self.is_concurrent {
            true => Order::Concurrent,
            false => Order::Sequential,
        });
        if let Some(limit) = self.max_running {
            builder = builder.max_running(limit);
        }
        if let Some(limit) = self.max_pending {
            builder = builder.max_pending(limit).max_awaiting_response(limit);
        }
        if self.is_observed {
            let model = model.clone();
            builder = builder.on_task_end(move |report: &TaskReport<'_>| model.tell(report));
        }
        builder.build()
    }
}
