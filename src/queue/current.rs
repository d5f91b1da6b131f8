//! [`Current`]: a task that has left its queue's list and has not ended. Whoever takes it out of its queue, and only they,
//! reports its end: so an end is reported once, whether the task came to it or was cut off.

use std::task::Waker;

use tokio::time::Instant;

use crate::{
    TaskId, TaskInfo, observe::span::TaskSpan, task::Label, task::request_line::RequestLine,
};

pub(crate) struct Current {
    pub(crate) label: Label,
    /// `None` while it still waits for a place under the runner's limits.
    pub(crate) begun: Option<Instant>,
    /// Wakes whoever polls it, to have it dropped. `None` before its first pending poll, and for a blocking task.
    pub(crate) waker: Option<Waker>,
    /// Nothing until the task begins.
    pub(crate) span: TaskSpan,
    /// It is skipped because somebody wanted that: a condition, or `OnFailure::Stop`.
    pub(crate) skipped_by_choice: bool,
}

impl Current {
    #[inline]
    pub(crate) fn new(label: Label) -> Self {
        Self {
            label,
            begun: None,
            waker: None,
            span: TaskSpan::default(),
            skipped_by_choice: false,
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
        is_overdue: false,
    }
}

/// Finds a [`Current`] again; it is gone once somebody took it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    place: usize,
    id: TaskId,
}

impl Key {
    pub(crate) fn id(self) -> TaskId {
        self.id
    }
}

/// So many places stay when all are free.
const KEPT_PLACES: usize = 64;

/// The current tasks of one queue: one, unless its tasks run concurrently.
#[derive(Default)]
pub(crate) struct Currents {
    /// The place that suffices while tasks run one after another.
    first: Option<Current>,
    /// Where tasks run concurrently.
    others: Option<Box<Others>>,
    len: usize,
}

#[derive(Default)]
struct Others {
    /// Places 1 and up.
    places: Vec<Option<Current>>,
    /// Which of them are free.
    free: Vec<usize>,
}

impl Currents {
    pub(crate) fn insert(&mut self, current: Current) -> Key {
        self.insert_with(current.label.id, || current)
    }

    /// [`insert`](Self::insert), of what is made in its place.
    #[inline]
    pub(crate) fn insert_with(&mut self, id: TaskId, make: impl FnOnce() -> Current) -> Key {
        self.len += 1;
        if self.first.is_none() {
            self.first = Some(make());
            return Key { place: 0, id };
        }
        let others = self.others.get_or_insert_default();
        let place = others.free.pop().unwrap_or_else(|| {
            others.places.push(None);
            others.places.len()
        });
        others.places[place - 1] = Some(make());
        Key { place, id }
    }

    /// `None` once somebody took it.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Current> {
        let current = match key.place {
            0 => self.first.as_mut(),
            place => self.others.as_mut()?.places.get_mut(place - 1)?.as_mut(),
        };
        current.filter(|current| current.label.id == key.id)
    }

    #[inline]
    pub(crate) fn take(&mut self, key: Key) -> Option<Current> {
        self.get_mut(key)?;
        self.len -= 1;
        let current = match &mut self.others {
            Some(others) if key.place > 0 => {
                others.free.push(key.place);
                others.places[key.place - 1].take()
            }
            _ => self.first.take(),
        };
        if self.len == 0 {
            self.others
                .take_if(|others| others.places.len() > KEPT_PLACES); // after a rush
        }
        current
    }

    /// Like [`take`](Self::take), for a caller to whom it is enough that it was there.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        match &mut self.first {
            Some(current) if key.place == 0 && current.label.id == key.id => {
                self.first = None;
                self.len -= 1;
                true
            }
            _ => self.take(key).is_some(),
        }
    }

    /// Finds a task by its number, wherever it is.
    pub(crate) fn find(&self, id: TaskId) -> Option<(Key, &Current)> {
        let is_it = |current: &&Current| current.label.id == id;
        let (place, current) = self
            .places()
            .enumerate()
            .find_map(|(place, current)| Some((place, current.as_ref().filter(is_it)?)))?;
        Some((Key { place, id }, current))
    }

    pub(crate) fn take_all(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Current> {
        self.places().flatten()
    }

    fn places(&self) -> impl Iterator<Item = &Option<Current>> {
        let others = self.others.iter().flat_map(|others| &others.places);
        [&self.first].into_iter().chain(others)
    }

    /// Gives back what many tasks at once have needed.
    pub(crate) fn forget_places(&mut self) {
        if self.others.is_some() {
            self.others = None;
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl IntoIterator for Currents {
    type Item = Current;
    type IntoIter = std::vec::IntoIter<Current>;

    fn into_iter(self) -> Self::IntoIter {
        let others = self.others.map(|others| others.places);
        let all = self
            .first
            .into_iter()
            .chain(others.into_iter().flatten().flatten());
        all.collect::<Vec<_>>().into_iter()
    }
}

#[cfg(all(test, not(background_tasks_loom)))]
mod tests {
    use super::*;
    use crate::Task;

    #[test]
    fn places_for_a_rush_are_given_back_with_the_last_task() {
        let mut currents = Currents::default();
        let now = Instant::now();
        let current = || Current::new(Task::new(async {}).label(now));
        for last in [0, 500, 999] {
            let mut keys: Vec<_> = (0..1_000).map(|_| currents.insert(current())).collect();
            keys.swap(last, 999);
            for key in keys {
                assert!(currents.others.is_some());
                assert!(currents.take(key).is_some());
                assert!(currents.take(key).is_none());
            }
            assert!(currents.others.is_none());
        }
        let key = currents.insert(current());
        assert!(currents.take(key).is_some());
        assert!(currents.is_empty());
    }
}
