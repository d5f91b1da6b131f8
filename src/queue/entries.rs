//! [`Entries`]: the tasks of a queue that have left its list, until their ends have been told and counted.

use std::{collections::BTreeMap, mem, task::Waker};

use tokio::time::Instant;

use crate::{
    observe::{info::TaskInfo, span::TaskSpan},
    task::{Task, id::TaskId, label::Label, request_line::RequestLine},
    util::contain::contain_drop,
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

    #[inline(always)]
    pub(super) fn running(label: Label, now: Instant) -> Self {
        Self::new(label, State::Running, Some(now))
    }

    /// One that ends without having begun.
    pub(super) fn ended(label: Label) -> Self {
        Self::new(label, State::Ended, None)
    }

    #[inline(always)]
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

    #[inline]
    pub(super) fn settle(&mut self) -> Settled {
        Settled {
            waker: self.waker.take(),
            _span: mem::take(&mut self.span),
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

/// What an entry held that has ended: wakers and spans are code of others.
#[must_use = "to be dropped behind the lock"]
#[derive(Default)]
pub(super) struct Settled {
    waker: Option<Waker>,
    _span: TaskSpan,
}

impl Drop for Settled {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            let _ = contain_drop(waker);
        }
    }
}

/// By the tasks' numbers. One place suffices while tasks run one after another, and needs no memory of its own.
#[derive(Default)]
#[expect(
    clippy::box_collection,
    reason = "most queues never have one, and are the smaller for it"
)]
pub(super) struct Entries {
    first: Option<Entry>,
    /// Not empty.
    others: Option<Box<BTreeMap<TaskId, Entry>>>,
}

impl Entries {
    /// Always inlined, so that an entry is made in the place where it stays.
    #[inline(always)]
    pub(super) fn insert(&mut self, entry: Entry) {
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.insert_other(entry);
        }
    }

    #[cold]
    fn insert_other(&mut self, entry: Entry) {
        let others = self.others.get_or_insert_default();
        others.insert(entry.label.id, entry);
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: TaskId) -> Option<&mut Entry> {
        match &mut self.first {
            Some(first) if first.label.id == id => Some(first),
            _ => self.others.as_mut()?.get_mut(&id),
        }
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<Entry> {
        let first = self.first.take_if(|first| first.label.id == id);
        first.or_else(|| self.remove_other(id))
    }

    /// [`remove`](Self::remove), in its place: for an entry that holds nothing but its label.
    #[inline]
    pub(super) fn forget(&mut self, id: TaskId) {
        match &self.first {
            Some(first) if first.label.id == id => self.first = None,
            _ => drop(self.remove_other(id)),
        }
    }

    fn remove_other(&mut self, id: TaskId) -> Option<Entry> {
        let entry = self.others.as_mut()?.remove(&id);
        self.others.take_if(|others| others.is_empty());
        entry
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let others = self.others.iter().flat_map(|others| others.values());
        self.first.iter().chain(others)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let others = self.others.iter_mut();
        let others = others.flat_map(|others| others.values_mut());
        self.first.iter_mut().chain(others)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_none()
    }
}
