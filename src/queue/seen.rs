//! [`Seen`]: what has passed of a response, for a plan that may cut the response off.
//!
//! 1. The connection records what has passed, that it waits, and the end. A plan may cut the
//!    response off. All of this happens under the lock. So nothing passes after the response is
//!    cut off, and its outcome includes all that passed before.
//! 2. Only one party ends the response: the connection, or the plan that cut the response off. It
//!    is the one that takes the state out of `Open`.

use std::{mem, task::Waker};

use crate::{
    ResponseEnd, ResponseOutcome,
    util::{
        contain::contain_drop,
        sync::{Mutex, lock},
    },
};

/// Only a followed queue has one.
pub(crate) struct Seen {
    state: Mutex<State>,
    /// True if the handler is a task of the runner. It is not cut off before it has answered: it
    /// has as long as the tasks.
    is_detached: bool,
}

enum State {
    Open {
        /// How the response would end if it were dropped now.
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

    /// Records what has passed. Returns false if the response was cut off before.
    pub(crate) fn note(&self, now: ResponseOutcome) -> bool {
        match &mut *lock(&self.state) {
            State::Open { so_far, .. } => *so_far = now,
            State::Ended => {}
            State::CutOff => return false,
        }
        true
    }

    /// Records the end. Returns false if the response was cut off before. The plan then ends it.
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

    /// Stores the waker of a pending poll. Returns false if the response was cut off before.
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

    /// Cuts the response off, unless it has ended. Returns its outcome and the waker of the
    /// connection.
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
