//! [`Current`]: a task that has left its queue's list and has not ended. Whoever takes it out of its queue, and only they,
//! reports its end: so an end is reported once, whether the task came to it or was cut off.

use std::task::Waker;

use tokio::time::Instant;

use crate::{TaskId, TaskInfo, info::RequestLine, task::Label};

pub(crate) struct Current {
    pub(crate) label: Label,
    /// `None` while it still waits for a place under the runner's limits.
    pub(crate) begun: Option<Instant>,
    /// Wakes whoever polls it, to have it dropped. `None` before its first pending poll, and for a blocking task.
    pub(crate) waker: Option<Waker>,
}

impl Current {
    pub(crate) fn new(label: Label) -> Self {
        Self {
            label,
            begun: None,
            waker: None,
        }
    }

    pub(crate) fn info(&self, request: Option<&RequestLine>, now: Instant) -> TaskInfo {
        info(&self.label, self.begun, request, now)
    }
}

/// A row for a task that began at `begun`, or that waits.
pub(crate) fn info(
    label: &Label,
    begun: Option<Instant>,
    request: Option<&RequestLine>,
    now: Instant,
) -> TaskInfo {
    TaskInfo {
        id: label.id,
        name: label.name(),
        location: label.location,
        kind: label.kind(),
        age: now.duration_since(label.added),
        running_for: begun.map(|begun| now.duration_since(begun)),
        request: request.cloned(),
    }
}

/// Finds a [`Current`] again; it is gone once somebody took it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    place: usize,
    id: TaskId,
}

/// The current tasks of one queue: one, unless its tasks run concurrently.
#[derive(Default)]
pub(crate) struct Currents {
    /// The place that suffices while tasks run one after another.
    first: Option<Current>,
    /// Places 1 and up, and which of them are free.
    others: Vec<Option<Current>>,
    free: Vec<usize>,
    len: usize,
}

impl Currents {
    pub(crate) fn insert(&mut self, current: Current) -> Key {
        self.len += 1;
        let id = current.label.id;
        if self.first.is_none() {
            self.first = Some(current);
            return Key { place: 0, id };
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.others.push(None);
            self.others.len()
        });
        self.others[place - 1] = Some(current);
        Key { place, id }
    }

    /// `None` once somebody took it.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Current> {
        let current = match key.place {
            0 => self.first.as_mut(),
            place => self.others.get_mut(place - 1)?.as_mut(),
        };
        current.filter(|current| current.label.id == key.id)
    }

    pub(crate) fn take(&mut self, key: Key) -> Option<Current> {
        self.get_mut(key)?;
        self.len -= 1;
        if key.place == 0 {
            return self.first.take();
        }
        self.free.push(key.place);
        self.others[key.place - 1].take()
    }

    /// Finds a task by its number, wherever it is.
    pub(crate) fn find(&self, id: TaskId) -> Option<(Key, &Current)> {
        let (place, current) = [&self.first]
            .into_iter()
            .chain(&self.others)
            .enumerate()
            .find_map(|(place, current)| {
                Some((place, current.as_ref()?)).filter(|(_, current)| current.label.id == id)
            })?;
        Some((Key { place, id }, current))
    }

    pub(crate) fn take_all(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Current> {
        self.first.iter().chain(self.others.iter().flatten())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl IntoIterator for Currents {
    type Item = Current;
    type IntoIter = std::iter::Chain<
        std::option::IntoIter<Current>,
        std::iter::Flatten<std::vec::IntoIter<Option<Current>>>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.first
            .into_iter()
            .chain(self.others.into_iter().flatten())
    }
}
