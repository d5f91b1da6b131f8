//! Adding a task to a queue, and refusing one.

use std::{panic::Location, sync::Arc};

use tokio::time::Instant;

use super::{Phase, Queue, State, ready::Ready};
#[cfg(feature = "tracing")]
use crate::observe::span::SpanRelation;
use crate::{
    observe::{info::TaskInfo, metrics::MetricName, span::TaskSpan},
    shared::registry::Closed,
    task::{
        Task,
        add_error::{AddTaskError, Refusal},
        added_in::AddedIn,
        end::{SkipReason, TaskEnd},
        id::TaskId,
        label::Label,
    },
    util::{contain::contain_drop, sync::lock},
};

impl Queue {
    /// Adds a task. If the task is refused, the error holds it.
    #[inline]
    pub(crate) fn add(
        self: &Arc<Self>,
        mut task: Task,
        location: &'static Location<'static>,
    ) -> Result<TaskId, AddTaskError> {
        task.set_added(location, self.added_in());
        self.push(task)
    }

    /// Returns `None` if task spans do not relate to other spans. The handle would only keep the
    /// request's span open.
    fn added_in(&self) -> Option<AddedIn> {
        #[cfg(feature = "tracing")]
        if self.span_relation() == SpanRelation::None {
            return None;
        }
        AddedIn::current()
    }

    #[inline]
    fn push(self: &Arc<Self>, mut task: Task) -> Result<TaskId, AddTaskError> {
        let mut state = lock(&self.state);
        match &state.phase {
            Phase::Merged(_) => {
                drop(state);
                return self.root().push(task);
            }
            Phase::Discarded => {
                drop(state);
                return self.skip_discarded(task);
            }
            Phase::Recording => {
                drop(state);
                return Ok(self.record(task));
            }
            Phase::Open | Phase::Running | Phase::Idle => {}
        }
        match self.count_in(&mut state) {
            Ok(id) => task.set_id(id),
            Err(refusal) => return Err(refusal.of(task)),
        }
        let (id, name) = (task.id(), MetricName::of_task(&task));
        state.tasks.push(task);
        let ready = self.start_if_idle(&mut state);
        drop(state);
        self.added(name, ready);
        Ok(id)
    }

    #[cold]
    fn skip_discarded(&self, task: Task) -> Result<TaskId, AddTaskError> {
        let owner = self.owner.as_ref();
        if owner.is_some_and(|owner| owner.queues.is_closed()) {
            return Err(Refusal::Closed.of(task));
        }
        Ok(self.end_at_once(task, &TaskEnd::Skipped(SkipReason::NotReleased)))
    }

    /// Counts the added task in the metrics and schedules the batch. The caller has released the
    /// lock.
    fn added(self: &Arc<Self>, name: MetricName, ready: Option<Ready>) {
        self.tell_added(name);
        self.watch_responses();
        if let Some(ready) = ready {
            self.schedule(ready, true);
        }
    }

    pub(super) fn tell_added(&self, name: MetricName) {
        if let Some(owner) = &self.owner {
            owner.shared.metrics.added(name, self.request.as_ref());
        }
    }

    /// Adds a task. A refused task ends rejected.
    #[inline]
    pub(crate) fn add_or_reject(
        self: &Arc<Self>,
        task: Task,
        location: &'static Location<'static>,
    ) {
        if let Err(refused) = self.add(task, location) {
            self.root().reject(refused.into_task());
        }
    }

    /// Counts an added task and registers the queue, or refuses the task.
    #[inline]
    pub(super) fn count_in(self: &Arc<Self>, state: &mut State) -> Result<TaskId, Refusal> {
        let Some(owner) = &self.owner else {
            return Ok(TaskId::NONE); // a merge counts the task and gives it an id
        };
        // Checked under the queue's lock. So a shutdown that closes the registry and then locks
        // this queue finds every task in it.
        if owner.queues.is_closed() {
            return Err(Refusal::Closed);
        }
        let awaits = matches!(state.phase, Phase::Open);
        self.take_place(awaits)?;
        if state.place.is_none() {
            match owner.queues.enter(self) {
                Ok(place) => state.place = Some(place),
                Err(Closed) => {
                    // The registry was closed after the first check.
                    self.give_back_place(awaits);
                    return Err(Refusal::Closed);
                }
            }
        }
        let id = owner.shared.count_added();
        if awaits {
            owner.shared.count_awaiting();
        }
        Ok(id)
    }

    /// Starts an idle queue. The caller schedules the batch after it releases the lock.
    pub(super) fn start_if_idle(self: &Arc<Self>, state: &mut State) -> Option<Ready> {
        matches!(state.phase, Phase::Idle).then(|| self.make_ready(state))
    }

    /// Rejects a task. If the runner has closed, the shutdown's report lists the task.
    pub(super) fn reject(&self, task: Task) {
        let owner = self.owner.as_ref();
        let closed = owner.filter(|owner| owner.queues.is_closed());
        let late = closed.map(|owner| (owner, task.label()));
        let id = self.end_at_once(task, &TaskEnd::Rejected);
        if let Some((owner, label)) = late {
            let label = Label { id, ..label };
            let row = TaskInfo::new(&label, None, self.request.as_ref(), Instant::now());
            lock(&owner.shared.unfinished).reject(row);
        }
    }

    /// Counts, ends and reports a task that never enters the queue.
    pub(super) fn end_at_once(&self, mut task: Task, end: &TaskEnd) -> TaskId {
        let Some(owner) = &self.owner else {
            let _ = contain_drop(task);
            return TaskId::NONE;
        };
        let id = owner.shared.count_added();
        task.set_id(id);
        self.tell_added(MetricName::of_task(&task));
        let label = task.label();
        if matches!(end, TaskEnd::Skipped(SkipReason::Recorded)) {
            let (request, now) = (self.request.as_ref(), Instant::now());
            owner.record(TaskInfo::new(&label, None, request, now));
        }
        let _ = contain_drop(task);
        self.report(&label, None, end, &TaskSpan::default());
        let request = self.request.as_ref();
        owner.shared.tally_end(&label, None, end, request);
        owner.shared.count_ended_at_once(end);
        owner.shared.notify();
        id
    }
}
