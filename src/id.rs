//! [`TaskId`].

use std::fmt;

/// Tells one task from every other of the same runner. It says nothing about order. A task that no runner knows yet is number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u64);

impl TaskId {
    /// Of a task that no runner knows yet.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
