//! A queue's tasks take their turns.

use std::{mem, sync::Arc, task::Waker};

use tokio::time::Instant;

use super::{Advance, Phase, Queue, State, Turn};
use crate::{
    TaskEnd, TaskId,
    executor::batch::Batch,
    executor::start::Start,
    observe::metrics,
    observe::report::Report,
    observe::span::TaskSpan,
    outcome::Verdict,
    queue::current::{Current, Key},
    shared::stats::CountersHere,
    util::contain::contain_drop,
    util::sync::{MutexGuard, lock},
};

impl Queue {
    pub(super) fn batch_begins(&self, state: &mut State) {
        state.phase = Phase::Running;
        self.count_batch();
    }

    /// Under the lock: whoever finds the phase changed finds the batch counted.
    pub(crate) fn count_batch(&self) {
        if let Some(runner) = &self.runner {
            runner.batch_begun();
        }
    }

    /// The response has ended: what is queued goes to the runner.
    pub(crate) fn end(self: Arc<Self>, verdict: Verdict) {
        // Of a queue without a task that nobody else holds, nobody can ask how the response went: an idle request saves the clock and
        // the lock.
        let Some(queue) = Self::let_go(self) else {
            return;
        };
        queue.end_asked(verdict);
    }

    fn end_asked(self: Arc<Self>, verdict: Verdict) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return;
        }
        state.ended = Some((verdict, now));
        if self.starts_on_the_worker(&mut state) {
            self.batch_begins(&mut state);
            drop(state);
            let multiplexed = self.multiplexed;
            let start = Start::new(self, verdict.is_responded());
            return start.at_end(now, multiplexed).launch();
        }
        if self.runs_concurrently() {
            state.phase = Phase::Idle;
            let mut batches = Vec::with_capacity(state.tasks.len());
            while let Some(turn) = state.next_turn(self.arrived) {
                self.count_batch();
                batches.push(Batch::of_one(Arc::clone(&self), turn).at_end(now, self.multiplexed));
            }
            drop(state);
            batches.into_iter().for_each(Batch::start);
        } else if let Some(turn) = state.next_turn(self.arrived) {
            self.batch_begins(&mut state);
            drop(state);
            let multiplexed = self.multiplexed;
            Batch::new(self, turn).at_end(now, multiplexed).start();
        } else {
            state.phase = Phase::Idle;
        }
    }

    /// The batch's task has ended; `failed` where it did not do what it was to do. On to the next.
    pub(crate) fn advance(&self, key: Key, failed: bool) -> Advance {
        let mut state = lock(&self.state);
        let ended = state.currents.take(key);
        state.stopped |= failed && ended.is_some() && self.stops_on_failure();
        let next = state.next_turn(self.arrived);
        if next.is_none() {
            state.phase = Phase::Idle;
            self.leave_if_empty(state);
        }
        Advance { ended, next }
    }

    /// On the fast path: the task of `completed` has, and the next one's turn has come. If nothing is set for that one either, it
    /// begins in the same critical section, as of `now`; that is what the `bool` says.
    ///
    /// Nobody is told that all may have ended: either something is left, or the end of the batch is to be told.
    #[inline]
    pub(crate) fn advance_plain(
        &self,
        completed: Option<Key>,
        now: Instant,
        counters: &CountersHere,
    ) -> Option<(Turn, bool)> {
        let mut state = lock(&self.state);
        let runner = self.runner.as_ref()?;
        let has_completed = completed.is_some_and(|key| state.currents.remove(key));
        let next = state.next_plain_turn(self.arrived, now);
        let begins = next.as_ref().is_some_and(|(_, begins)| *begins);
        match (has_completed, begins) {
            (true, true) => counters.task_went_on(),
            (true, false) => counters.task_ended(&TaskEnd::Completed),
            (false, true) => counters.task_begun(),
            (false, false) => {}
        }
        if begins {
            runner.give_back_pending_place();
        }
        if next.is_none() {
            state.phase = Phase::Idle;
            self.leave_if_empty(state);
        }
        next
    }

    /// On the fast path: the task of `completed` has, and the batch goes on later, if this is true.
    pub(crate) fn pause_plain(&self, completed: Key) -> bool {
        let mut state = lock(&self.state);
        let Some(runner) = &self.runner else {
            return false;
        };
        if state.currents.remove(completed) {
            runner.counters().task_ended(&TaskEnd::Completed);
        }
        let goes_on = !state.tasks.is_empty();
        if !goes_on {
            state.phase = Phase::Idle;
        }
        self.leave_if_empty(state);
        goes_on
    }

    /// The turn of the first of the tasks, for a batch that was handed over without one.
    pub(crate) fn first_turn(&self) -> Option<Turn> {
        let mut state = lock(&self.state);
        let turn = state.next_turn(self.arrived);
        if turn.is_none() {
            state.phase = Phase::Idle;
        }
        turn
    }

    /// A task that is a batch of its own, or is run by hand, has ended: `Some` is for the caller to report.
    pub(crate) fn ended(&self, key: Key, failed: bool) -> Option<Current> {
        let mut state = lock(&self.state);
        let ended = state.currents.take(key);
        state.stopped |= failed && ended.is_some() && self.stops_on_failure();
        self.leave_if_empty(state);
        ended
    }

    /// The task begins to run; false where somebody has ended it.
    pub(crate) fn begin(&self, key: Key, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let Some(current) = state.currents.get_mut(key) else {
            return false;
        };
        current.begun = Some(now);
        let name = metrics::name(&current.label);
        if let Some(runner) = &self.runner {
            runner.task_begun(); // under the lock: whoever ends the task finds it counted
        }
        drop(state);
        if self.runner.is_some() {
            metrics::begun(name);
        }
        true
    }

    /// The task is pending, and `waker` wakes who polls it; false where somebody has ended it.
    pub(crate) fn park(&self, key: Key, waker: &Waker) -> bool {
        let is_kept = |current: &Current| {
            current
                .waker
                .as_ref()
                .is_some_and(|old| old.will_wake(waker))
        };
        match lock(&self.state).currents.get_mut(key) {
            Some(current) if !is_kept(current) => {}
            Some(_) => return true,
            None => return false,
        }
        // A waker's clone and drop may be anybody's code: not under the lock.
        let mut waker = Some(waker.clone());
        let mut state = lock(&self.state);
        let current = state.currents.get_mut(key);
        let is_current = current
            .map(|current| mem::swap(&mut current.waker, &mut waker))
            .is_some();
        drop(state);
        let _ = contain_drop(waker);
        is_current
    }

    /// Keeps the span of a task that begins, for whoever ends it.
    pub(crate) fn keep_span(&self, key: Key, span: &TaskSpan) {
        if span.is_none() {
            return;
        }
        let mut span = span.clone();
        if let Some(current) = lock(&self.state).currents.get_mut(key) {
            mem::swap(&mut current.span, &mut span);
        }
    }

    /// Notes that a task is skipped because somebody wanted that.
    pub(crate) fn skip_by_choice(&self, key: Key) {
        if let Some(current) = lock(&self.state).currents.get_mut(key) {
            current.skipped_by_choice = true;
        }
    }

    /// Takes a task out of a queue whose response has not ended, for whoever runs it by hand. Afterwards only a batch may.
    pub(crate) fn take(&self) -> Option<Turn> {
        let state = &mut *lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return None;
        }
        let mut task = state.tasks.pop()?;
        if self.runner.is_none() {
            // All have the number 0. With one of its own, the key of a task that was aborted is never that of the next.
            state.taken += 1;
            task.set_id(TaskId::new(state.taken));
        }
        Some(state.turn_of(task, self.arrived))
    }

    /// Tells the runner how a task ended, which the caller has taken out of the queue. Its spans (`span` is the caller's handle) are
    /// closed by the time that whoever waits for the end hears of it.
    #[inline]
    pub(crate) fn report(&self, mut current: Current, end: &TaskEnd, span: TaskSpan) {
        if let Some(waker) = current.waker.take() {
            let _ = contain_drop(waker); // may be anybody's code
        }
        let Some(runner) = &self.runner else { return };
        let own = mem::take(&mut current.span);
        own.in_scope(|| {
            runner.report(&Report {
                label: &current.label,
                end,
                begun: current.begun,
                skipped_by_choice: current.skipped_by_choice,
                response: self.outcome(),
                request: self.request(),
            });
        });
        drop((own, span));
        runner.count_ended(end, current.begun.is_some());
    }

    /// Leaves the registry when there is nothing left to name. The registry's handle may be the last but the caller's: it is
    /// dropped behind the lock.
    #[inline]
    pub(super) fn leave_if_empty(&self, mut state: MutexGuard<'_, State>) {
        if !state.tasks.is_empty() || !state.currents.is_empty() {
            return;
        }
        let handle = match (state.place.take(), &self.runner) {
            (Some(place), Some(runner)) => runner.registry().leave(place),
            _ => None,
        };
        drop(state);
        drop(handle);
    }
}

#[cfg(all(test, not(background_tasks_loom)))]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::Task;

    #[test]
    fn the_key_of_a_task_run_by_hand_and_aborted_is_not_that_of_the_next() {
        let queue = Queue::stand_alone();
        for _ in 0..2 {
            queue.add_or_reject(Task::blocking(|| ()), Location::caller());
        }
        let now = Instant::now();
        let [first, second] = [(); 2].map(|()| {
            let key = queue.take().map(|turn| turn.key);
            let key = key.expect("a task waits");
            assert!(queue.begin(key, now));
            assert!(queue.ended(key, false).is_some());
            key
        });
        queue.add_or_reject(Task::blocking(|| ()), Location::caller());
        let third = queue.take().map(|turn| turn.key).expect("a task waits");
        assert!(!queue.begin(first, now) && !queue.begin(second, now));
        assert!(queue.begin(third, now));
    }
}
