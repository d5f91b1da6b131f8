//! What is added to a queue, and where it goes.

use std::{mem, panic::Location, sync::Arc};

use tokio::time::Instant;

use super::{Phase, Queue, Ready, State};
use crate::{
    AddTaskError, Order, Runner, Task, TaskEnd, TaskId, executor::batch::Batch,
    executor::start::Start, observe::metrics, observe::span::TaskSpan, queue::current::Current,
    shared::registry::Closed, task::add_error::Refusal, util::contain::contain_drop,
    util::sync::lock,
};

impl Queue {
    /// Adds a task, which a refusal gives back.
    #[inline]
    pub(crate) fn add(
        self: &Arc<Self>,
        mut task: Task,
        location: &'static Location<'static>,
    ) -> Result<TaskId, AddTaskError> {
        let observed = self.runner.as_ref().is_none_or(Runner::is_observed);
        task.set_added(location, observed.then(Instant::now), self.runner.as_ref());
        self.add_here(task)
    }

    /// Always inlined: with the rest of its callers it is one function, which saves each task some 28 instructions.
    #[inline(always)]
    fn add_here(self: &Arc<Self>, mut task: Task) -> Result<TaskId, AddTaskError> {
        let mut state = lock(&self.state);
        if let Phase::Merged(_) = &state.phase {
            drop(state);
            return self.add_to_root(task);
        }
        match self.count_in(&mut state) {
            Ok(id) => task.set_id(id),
            Err(refusal) => return Err(refusal.of(task)),
        }
        // Before the end of the response, in a runner that nobody observes, the request's arrival is good enough for
        // `TaskInfo::age`, and saves a look at the clock for each task.
        if !matches!(state.phase, Phase::Open) {
            task.add_by_now();
        }
        let (id, name) = (task.id(), self.metrics_name(&task));
        let ready = self.enqueue(&mut state, task);
        drop(state);
        metrics::added(name);
        if let Some(ready) = ready {
            ready.launch();
        }
        Ok(id)
    }

    /// Adds a task to the queue that this one is part of.
    #[cold]
    fn add_to_root(self: &Arc<Self>, task: Task) -> Result<TaskId, AddTaskError> {
        self.root().add_here(task)
    }

    /// Adds a task. One that is refused ends rejected.
    pub(crate) fn add_or_reject(
        self: &Arc<Self>,
        task: Task,
        location: &'static Location<'static>,
    ) {
        if let Err(refused) = self.add(task, location) {
            self.root().reject(refused.into_task());
        }
    }

    /// Counts a task in, and has the queue registered; or refuses it.
    #[inline]
    pub(super) fn count_in(self: &Arc<Self>, state: &mut State) -> Result<TaskId, Refusal> {
        let Some(runner) = &self.runner else {
            return Ok(TaskId::NONE); // until a merge
        };
        runner.take_pending_place()?;
        if state.place.is_none() {
            match runner.registry().enter(self) {
                Ok(place) => state.place = Some(place),
                Err(Closed) => {
                    runner.give_back_pending_place();
                    return Err(Refusal::Closed);
                }
            }
        }
        Ok(runner.count_added())
    }

    /// Puts a task behind the others. Where nothing else would start it, what the caller is to start comes back.
    #[inline]
    pub(super) fn enqueue(self: &Arc<Self>, state: &mut State, task: Task) -> Option<Ready> {
        state.tasks.push(task);
        if matches!(state.phase, Phase::Idle) {
            self.ready(state)
        } else {
            None
        }
    }

    /// What is to be started of an idle queue that has a task now.
    #[inline(never)]
    fn ready(self: &Arc<Self>, state: &mut State) -> Option<Ready> {
        if self.starts_on_the_worker(state) {
            self.batch_begins(state);
            let start = Start::new(Arc::clone(self), state.is_responded());
            return Some(Ready::Start(start));
        }
        let turn = state.next_turn(self.arrived)?;
        Some(Ready::Batch(if self.runs_concurrently() {
            self.count_batch();
            Batch::of_one(Arc::clone(self), turn)
        } else {
            self.batch_begins(state);
            Batch::new(Arc::clone(self), turn)
        }))
    }

    /// Whether a worker can take the first task out itself: it needs no place under the runner's limits, nor a blocking thread.
    #[inline]
    pub(super) fn starts_on_the_worker(&self, state: &mut State) -> bool {
        let runner = self.runner.as_ref();
        let is_free = runner.is_some_and(|runner| {
            runner.admission().is_none() && runner.order() == Order::Sequential
        });
        is_free && state.tasks.begins_async()
    }

    /// For the metrics of the runner, if there is one.
    pub(super) fn metrics_name(&self, task: &Task) -> metrics::Name {
        let runner = self.runner.as_ref();
        runner.map_or(metrics::Name::NONE, |_| metrics::name_of(task))
    }

    /// Ends a task that was refused.
    pub(super) fn reject(&self, mut task: Task) {
        if let Some(runner) = &self.runner {
            task.set_id(runner.count_added());
            metrics::added(metrics::name_of(&task));
            let current = Current::new(task.label(self.arrived));
            let _ = contain_drop(task);
            self.report(current, &TaskEnd::Rejected, TaskSpan::default());
        }
    }

    /// Moves the tasks of `from` behind this queue's own, and whatever is added to `from` later too.
    ///
    /// Does nothing if `from` is this queue, or is part of it or of another already.
    pub(crate) fn merge(self: &Arc<Self>, from: &Arc<Self>) {
        let (into, from) = (self.root(), from.root());
        if Arc::ptr_eq(&into, &from) || from.runner.is_some() {
            return;
        }
        // Both at once, so that a task added to `from` meanwhile cannot overtake those that move; by age (and address), so that
        // two merges of the same pair cannot wait for each other.
        let age = |queue: &Arc<Self>| (queue.arrived, Arc::as_ptr(queue));
        let (mut into_state, mut from_state);
        if age(&into) < age(&from) {
            into_state = lock(&into.state);
            from_state = lock(&from.state);
        } else {
            from_state = lock(&from.state);
            into_state = lock(&into.state);
        }
        if matches!(from_state.phase, Phase::Merged(_)) {
            return;
        }
        if matches!(into_state.phase, Phase::Merged(_)) {
            drop((into_state, from_state));
            return into.merge(&from);
        }
        from_state.phase = Phase::Merged(Arc::clone(&into));
        let mut moving = mem::take(&mut from_state.tasks);
        drop(from_state);
        let (mut refused, mut batches, mut names) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(mut task) = moving.pop() {
            match into.count_in(&mut into_state) {
                Ok(id) => {
                    task.set_id(id);
                    names.push(into.metrics_name(&task));
                    batches.extend(into.enqueue(&mut into_state, task));
                }
                Err(_) => refused.push(task),
            }
        }
        drop(into_state);
        names.into_iter().for_each(metrics::added);
        batches.into_iter().for_each(Ready::launch);
        for task in refused {
            into.reject(task);
        }
    }
}
