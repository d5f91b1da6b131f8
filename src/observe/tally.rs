//! [`Tally`]: what has ended lately, by name and route, and the last failures: for the dashboard.
//!
//! 1. It is bounded: the last minute of at most [`GROUPS`] groups, and [`FAILURES`] failures. What
//!    would be a group more is counted as `(others)`.
//! 2. Each thread counts in its own shard, under its lock. No user code runs under a lock.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    panic::Location,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::report::Report;
use crate::{
    task::{end::TaskEnd, id::TaskId, request_info::RequestInfo},
    util::{
        sharded::Sharded,
        sync::{Mutex, lock},
    },
};

/// How many groups there are at most, but for `(others)`.
const GROUPS: usize = 100;

/// How many failures are kept.
const FAILURES: usize = 100;

/// How many seconds are looked back upon.
pub(crate) const SECONDS: usize = 60;

/// How much of an error's text is kept, in bytes.
const LONGEST_ERROR: usize = 4_096;

pub(crate) struct Tally {
    since: Instant,
    groups: Sharded<Mutex<BTreeMap<GroupKey, Group>>>,
    failures: Mutex<VecDeque<Failure>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub(crate) name: &'static str,
    pub(crate) route: Option<Arc<str>>,
}

/// Tasks of one name and route.
#[derive(Clone)]
pub(crate) struct Group {
    /// In the order of [`TaskEnd::WORDS`].
    pub(crate) ends: [u64; TaskEnd::WORDS.len()],
    /// A ring: each second has its place.
    seconds: Box<[Second; SECONDS]>,
}

/// The tasks that ended in one second.
#[derive(Clone, Copy, Default)]
pub(crate) struct Second {
    /// Counted from the tally's beginning.
    number: u64,
    pub(crate) ended: u32,
    /// Of those that ended, those that had begun.
    pub(crate) begun: u32,
    /// Sums over those that had begun.
    pub(crate) waited: Duration,
    pub(crate) ran: Duration,
}

#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) at: Instant,
    pub(crate) id: TaskId,
    pub(crate) name: Cow<'static, str>,
    /// One word.
    pub(crate) end: &'static str,
    pub(crate) error: Option<String>,
    pub(crate) request: Option<RequestInfo>,
    pub(crate) location: &'static Location<'static>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            groups: Sharded::default(),
            failures: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, report: &Report<'_>) {
        if report.end.is_error() {
            self.keep(Failure::of(report));
        }
        let second = self.second(report.ended);
        let mut groups = lock(self.groups.this());
        let key = GroupKey::of(report);
        let key = if groups.len() >= GROUPS && !groups.contains_key(&key) {
            GroupKey::others()
        } else {
            key
        };
        groups.entry(key).or_default().count(report, second);
    }

    fn keep(&self, failure: Failure) {
        let mut failures = lock(&self.failures);
        let oldest = if failures.len() == FAILURES {
            failures.pop_front()
        } else {
            None
        };
        failures.push_back(failure);
        drop(failures);
        drop(oldest);
    }

    /// Returns the last failures, newest first.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        lock(&self.failures).iter().rev().cloned().collect()
    }

    /// Returns the groups, the busiest first, and the seconds of each, the oldest first.
    pub(crate) fn groups(&self, now: Instant) -> Vec<(GroupKey, Group, [Second; SECONDS])> {
        let mut all: BTreeMap<GroupKey, Group> = BTreeMap::new();
        for shard in self.groups.iter() {
            for (key, group) in lock(shard).iter() {
                all.entry(key.clone()).or_default().add(group);
            }
        }
        let last = self.second(now);
        let with_seconds = all.into_iter().map(|(key, group)| {
            let seconds = group.last_seconds(last);
            (key, group, seconds)
        });
        let mut groups: Vec<_> = with_seconds.collect();
        groups.sort_by_key(|(_, group, seconds)| {
            let lately: u32 = seconds.iter().map(|second| second.ended).sum();
            std::cmp::Reverse((lately, group.ends.iter().sum::<u64>()))
        });
        groups.truncate(GROUPS);
        groups
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    fn second(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_secs()
    }
}

impl GroupKey {
    fn of(report: &Report<'_>) -> Self {
        Self {
            name: report.label.name.of_the_program().unwrap_or("(dynamic)"),
            route: report.request.and_then(RequestInfo::shared_route),
        }
    }

    fn others() -> Self {
        Self {
            name: "(others)",
            route: None,
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self {
            ends: Default::default(),
            seconds: Box::new([Second::default(); SECONDS]),
        }
    }
}

impl Group {
    fn count(&mut self, report: &Report<'_>, number: u64) {
        self.ends[report.end.index()] += 1;
        let second = self.second_mut(number);
        second.ended += 1;
        if report.begun.is_some() {
            second.begun += 1;
            second.waited += report.waited();
            second.ran += report.ran();
        }
    }

    /// Returns the second of this number. What its place held before is over.
    fn second_mut(&mut self, number: u64) -> &mut Second {
        let second = &mut self.seconds[place(number)];
        if second.number != number {
            *second = Second {
                number,
                ..Second::default()
            };
        }
        second
    }

    fn add(&mut self, other: &Self) {
        for (end, more) in self.ends.iter_mut().zip(other.ends) {
            *end += more;
        }
        for more in other.seconds.iter() {
            let place = &self.seconds[place(more.number)];
            if place.number > more.number {
                continue; // what is in this place now is later
            }
            let second = self.second_mut(more.number);
            second.ended += more.ended;
            second.begun += more.begun;
            second.waited += more.waited;
            second.ran += more.ran;
        }
    }

    fn last_seconds(&self, last: u64) -> [Second; SECONDS] {
        std::array::from_fn(|index| {
            let before = (SECONDS - 1 - index) as u64;
            let number = last.checked_sub(before);
            let second = number.map(|number| self.seconds[place(number)]);
            second
                .filter(|second| Some(second.number) == number)
                .unwrap_or_default()
        })
    }
}

fn place(number: u64) -> usize {
    (number % SECONDS as u64) as usize
}

impl Failure {
    fn of(report: &Report<'_>) -> Self {
        let mut error = report.error();
        if let Some(error) = &mut error {
            let end = (0..=LONGEST_ERROR)
                .rev()
                .find(|&end| error.is_char_boundary(end));
            error.truncate(end.unwrap_or_default());
        }
        Self {
            at: report.ended,
            id: report.label.id,
            name: report.label.name(),
            end: report.end.as_str(),
            error,
            request: report.request.cloned(),
            location: report.label.location,
        }
    }
}
