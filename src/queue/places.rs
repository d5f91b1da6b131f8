//! The places of waiting tasks under the runner's limits.
//!
//! 1. A task in the list of an open queue has a place among the tasks that await their responses.
//!    Any other task that has not begun has a place among the tasks that wait for the runner.
//! 2. A thread that takes a task out of an open queue's list, or ends the phase `Open`, moves the
//!    places in the same critical section.

use super::{Phase, Queue, State};
use crate::task::add_error::Refusal;

impl Queue {
    /// Takes a place for a task: among those that await their responses if it `awaits`, or else
    /// among those that wait for the runner.
    #[inline]
    pub(super) fn take_place(&self, awaits: bool) -> Result<(), Refusal> {
        match &self.owner {
            Some(owner) if awaits => owner.shared.take_awaiting_place(),
            Some(owner) if !self.is_shielded => owner.shared.take_pending_place(),
            _ => Ok(()),
        }
    }

    #[inline]
    pub(super) fn give_back_place(&self, awaits: bool) {
        match &self.owner {
            Some(owner) if awaits => owner.shared.give_back_awaiting_place(),
            Some(owner) if !self.is_shielded => owner.shared.give_back_pending_place(),
            _ => {}
        }
    }

    /// Moves the places of tasks that leave the list of an open queue.
    #[inline]
    pub(super) fn no_longer_await(&self, state: &State, tasks: usize) {
        let owner = self.owner.as_ref();
        if let Some(owner) = owner.filter(|_| matches!(state.phase, Phase::Open)) {
            owner.shared.count_awaited(tasks);
        }
    }
}
