//! [`Entries`]: the tasks that have left a queue's list, until their ends are reported and
//! counted.

use std::{collections::BTreeMap, mem, task::Waker};

use tokio::time::Instant;

use crate::{
    observe::{info::TaskInfo, span::TaskSpan},
    task::{Task, id::TaskId, label::Label, request_info::RequestInfo},
    util::contain::contain_drop,
};

pub(crate) struct Entry {
    pub(super) label: Label,
    pub(super) state: EntryState,
    /// `None` until the task begins.
    pub(super) begun: Option<Instant>,
    /// Wakes the poller of the task, which then drops it. `None` before the first pending poll,
    /// and for a blocking task without a supervisor.
    pub(super) waker: Option<Waker>,
    /// Empty until the task begins.
    pub(super) span: TaskSpan,
    /// True while a supervised task is on its blocking thread.
    pub(super) on_thread: bool,
    /// From 0 to 1. `None` until the task sets it.
    pub(super) progress: Option<f32>,
}

/// `Waiting` becomes `Running` when the task begins. Both become `Ended` when a party claims the
/// end. The entry is removed once the end is counted. A supervised task that timed out stays
/// `Overdue` until its thread returns.
pub(super) enum EntryState {
    /// The task waits for a permit, or for its thread.
    Waiting(Task),
    /// The poller has the task.
    Running,
    /// A party has claimed the end and reports it.
    Ended,
    /// The task timed out and its end was reported, but its thread still runs.
    Overdue,
}

impl Entry {
    pub(super) fn waiting(task: Task) -> Self {
        Self::new(task.label(), EntryState::Waiting(task), None)
    }

    #[inline(always)]
    pub(super) fn running(label: Label, now: Instant) -> Self {
        Self::new(label, EntryState::Running, Some(now))
    }

    /// Makes the entry of a task that ends before it begins.
    pub(super) fn ended(label: Label) -> Self {
        Self::new(label, EntryState::Ended, None)
    }

    #[inline(always)]
    fn new(label: Label, state: EntryState, begun: Option<Instant>) -> Self {
        Self {
            label,
            state,
            begun,
            waker: None,
            span: TaskSpan::default(),
            on_thread: false,
            progress: None,
        }
    }

    #[inline]
    pub(super) fn settle(&mut self) -> Settled {
        Settled {
            waker: self.waker.take(),
            _span: mem::take(&mut self.span),
        }
    }

    /// True while no party has claimed the end.
    #[inline]
    pub(super) fn is_unclaimed(&self) -> bool {
        matches!(self.state, EntryState::Waiting(_) | EntryState::Running)
    }

    pub(super) fn info(&self, request: Option<&RequestInfo>, now: Instant) -> TaskInfo {
        TaskInfo {
            progress: self.progress.map(rounded),
            is_overdue: matches!(self.state, EntryState::Overdue),
            ..TaskInfo::new(&self.label, self.begun, request, now)
        }
    }
}

/// Converts to `f64`, rounded to six digits to hide the error of `f32`.
fn rounded(share: f32) -> f64 {
    (f64::from(share) * 1e6).round() / 1e6
}

/// The waker and the span of an ended entry. Dropping them may run user code, so the caller
/// releases the lock first.
#[must_use = "drop it after the lock is released"]
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

/// Keyed by task id. Tasks that run one after another use only `first`, which allocates nothing.
#[derive(Default)]
#[expect(
    clippy::box_collection,
    reason = "most queues never have one, and are the smaller for it"
)]
pub(super) struct Entries {
    first: Option<Entry>,
    /// Never an empty map.
    others: Option<Box<BTreeMap<TaskId, Entry>>>,
}

impl Entries {
    /// Always inlined, so that the entry is built in place.
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

    /// Like [`remove`](Self::remove), but in place, for an entry that holds only its label.
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
