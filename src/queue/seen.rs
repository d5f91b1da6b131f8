//! [`Seen`]: what has passed of a response, for a plan that may cut it off.
//!
//! 1. The connection notes what passes, that it waits, and the end. A plan cuts the response off.
//!    All of it happens under the lock, so nothing passes after a cut, and what has passed before is
//!    in its outcome.
//! 2. Either the connection ends the response, or the plan that has cut it off: the party that takes
//!    the state out of `Open`.

use std::{mem, task::Waker};

use crate::{
    ResponseEnd, ResponseOutcome,
    util::{
        contain::contain_drop,
        sync::{Mutex, lock},
    },
};

/// Only a queue that is followed has it.
pub(crate) struct Seen {
    state: Mutex<State>,
    /// The handler is a task of the runner. While it has not answered, it is not cut off: it has the
    /// time of the tasks.
    is_detached: bool,
}

enum State {
    Open {
        /// How the response would have ended if it had been dropped by now.
        so_far: ResponseOutcome,
        /// Wakes the connection that waits for the handler or the body.
        waiting: Option<Waker>,
    },
    Ended,
    CutOff,
}

impl Seen {
    pub(super) fn new(is_detached: bool) -> Self {
        let so_far = ResponseOutcome::new(ResponseEnd::Cancelled, None);
        let waiting = None;
        Self {
            state: Mutex::new(State::Open { so_far, waiting }),
            is_detached,
        }
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        matches!(*lock(&self.state), State::CutOff)
    }

    /// Notes what has passed. Returns false if the response was cut off before.
    pub(crate) fn note(&self, now: ResponseOutcome) -> bool {
        match &mut *lock(&self.state) {
            State::Open { so_far, .. } => *so_far = now,
            State::Ended => {}
            State::CutOff => return false,
        }
        true
    }

    /// Notes the end. Returns false if the response was cut off before, and the plan ends it.
    pub(crate) fn note_end(&self) -> bool {
        let mut state = lock(&self.state);
        if matches!(*state, State::CutOff) {
            return false;
        }
        let before = mem::replace(&mut *state, State::Ended);
        drop(state);
        let _ = contain_drop(before); // its waker is user code
        true
    }

    /// Keeps the waker of a poll that is pending. Returns false if the response was cut off before.
    pub(crate) fn wait(&self, waker: &Waker) -> bool {
        match &*lock(&self.state) {
            State::CutOff => return false,
            State::Ended => return true,
            State::Open { waiting, .. } => {
                if waiting.as_ref().is_some_and(|old| old.will_wake(waker)) {
                    return true;
                }
            }
        }
        // Cloning or dropping a waker may run user code, so neither happens under the lock.
        let mut waker = Some(waker.clone());
        let mut state = lock(&self.state);
        if let State::Open { waiting, .. } = &mut *state {
            mem::swap(waiting, &mut waker);
        }
        let is_open = !matches!(*state, State::CutOff);
        drop(state);
        let _ = contain_drop(waker);
        is_open
    }

    /// Cuts the response off, unless it has ended. Returns its outcome, and who waits for it.
    pub(super) fn cut_off(&self) -> Option<(ResponseOutcome, Option<Waker>)> {
        let mut state = lock(&self.state);
        match &*state {
            State::Open { so_far, .. } if so_far.status.is_none() && self.is_detached => None,
            State::Open { .. } => match mem::replace(&mut *state, State::CutOff) {
                State::Open { so_far, waiting } => Some((so_far, waiting)),
                State::Ended | State::CutOff => None,
            },
            State::Ended | State::CutOff => None,
        }
    }
}
