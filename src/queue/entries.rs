//! [`Entries`]: the tasks of a queue that have left its list, until their ends have been told and counted.

use std::{collections::BTreeMap, task::Waker};

use tokio::time::Instant;

use crate::{
    observe::{info::TaskInfo, span::TaskSpan},
    task::{Task, id::TaskId, label::Label, request_line::RequestLine},
};

pub(crate) struct Entry {
    pub(super) label: Label,
    pub(super) state: State,
    /// `None` until the task begins.
    pub(super) begun: Option<Instant>,
    /// Wakes whoever polls it, to have it dropped. `None` before its first pending poll, and for a blocking task.
    pub(super) waker: Option<Waker>,
    /// Nothing until the task begins.
    pub(super) span: TaskSpan,
    /// A supervised task that is inside its blocking thread.
    pub(super) on_thread: bool,
}

pub(super) enum State {
    /// Its turn has come, and it waits for a permit, or for the thread that it is to run on.
    Waiting(Task),
    /// Whoever polls it has the task.
    Running,
    /// It has ended, and is being told of.
    Ended,
    /// It has timed out and was told of, and its thread goes on.
    Overdue,
}

impl Entry {
    pub(super) fn waiting(task: Task) -> Self {
        Self::new(task.label(), State::Waiting(task), None)
    }

    #[inline]
    pub(super) fn running(label: Label, now: Instant) -> Self {
        Self::new(label, State::Running, Some(now))
    }

    /// One that ends without having begun.
    pub(super) fn ended(label: Label) -> Self {
        Self::new(label, State::Ended, None)
    }

    #[inline]
    fn new(label: Label, state: State, begun: Option<Instant>) -> Self {
        Self {
            label,
            state,
            begun,
            waker: None,
            span: TaskSpan::default(),
            on_thread: false,
        }
    }

    /// Nobody has told its end.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        matches!(self.state, State::Waiting(_) | State::Running)
    }

    pub(super) fn info(&self, request: Option<&RequestLine>, now: Instant) -> TaskInfo {
        let info = TaskInfo::new(&self.label, self.begun, request, now);
        match self.state {
            State::Overdue => info.overdue(),
            _ => info,
        }
    }
}

/// By the tasks' numbers. One place suffices while tasks run one after another, and needs no memory of its own.
#[derive(Default)]
pub(super) struct Entries {
    first: Option<Entry>,
    others: BTreeMap<TaskId, Entry>,
}

impl Entries {
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.others.insert(entry.label.id, entry);
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: TaskId) -> Option<&mut Entry> {
        match &mut self.first {
            Some(first) if first.label.id == id => Some(first),
            _ => self.others.get_mut(&id),
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, id: TaskId) -> Option<Entry> {
        let first = self.first.take_if(|first| first.label.id == id);
        first.or_else(|| self.others.remove(&id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.first.iter().chain(self.others.values())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.first.iter_mut().chain(self.others.values_mut())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }
}
