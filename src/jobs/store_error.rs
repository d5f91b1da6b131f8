//! [`DuplicateJob`] and [`UnsupportedByStore`]: a store's answers that are not its own failures.

use std::{borrow::Cow, error::Error, fmt};

use crate::JobId;

/// A [`JobStore`](crate::JobStore) refused a job because it keeps another one with the same
/// [key](crate::Job::unique).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateJob {
    id: Option<JobId>,
}

impl DuplicateJob {
    /// Makes a store's answer. `id` is that of the job that has the key, if the store knows it.
    pub fn of(id: Option<JobId>) -> Self {
        Self { id }
    }

    /// Returns the id of the job that has the key, if the store knows it.
    pub fn id(&self) -> Option<JobId> {
        self.id
    }
}

impl fmt::Display for DuplicateJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "job {id} has the same key"),
            None => f.write_str("another job has the same key"),
        }
    }
}

impl Error for DuplicateJob {}

/// A [`JobStore`](crate::JobStore) does not support an operation. Trying again does not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedByStore(Cow<'static, str>);

impl UnsupportedByStore {
    /// Makes a store's answer. `text` says what the store cannot do, and which store can.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for UnsupportedByStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UnsupportedByStore {}
