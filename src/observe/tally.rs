//! [`Tally`]: counts ends by name and route, and keeps the last failures, for the dashboard.
//!
//! 1. It is bounded: each shard has at most [`GROUPS`] groups, and each group keeps one minute.
//!    Tasks of further groups are counted as `(others)`. At most [`FAILURES`] failures are kept.
//! 2. Each thread counts in its own shard, under the shard's lock, and may hold a queue's lock. No
//!    thread locks a queue while it holds a shard's lock. No user code runs under either lock.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    panic::Location,
    ptr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::report::Report;
use crate::{
    task::{end::TaskEnd, id::TaskId, label::Label, request_info::RequestInfo},
    util::{
        sharded::Sharded,
        sync::{Mutex, lock},
        text::cut,
    },
};

/// The maximum number of groups in a shard, besides `(others)`.
const GROUPS: usize = 100;

/// The group of tasks whose names were made at run time.
static DYNAMIC: &str = "(dynamic)";

/// The group of tasks for which a full shard has no group.
static OTHERS: &str = "(others)";

/// The maximum number of failures kept.
const FAILURES: usize = 100;

/// How many seconds a group keeps.
pub(crate) const SECONDS: usize = 60;

/// The longest part of an error's text that is kept, in bytes.
const LONGEST_ERROR: usize = 4_096;

pub(crate) struct Tally {
    since: Instant,
    /// Each shard's groups are unordered, as there are few. Names are compared by address. A name
    /// at two addresses has two groups here, which [`groups`](Self::groups) merges.
    groups: Sharded<Mutex<Vec<(GroupKey, Group)>>>,
    failures: Mutex<VecDeque<Failure>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub(crate) name: &'static str,
    pub(crate) route: Option<Arc<str>>,
}

#[derive(Clone)]
pub(crate) struct Group {
    /// How many tasks ended in each way, in the order of [`TaskEnd::WORDS`].
    pub(crate) ends: [u64; TaskEnd::WORDS.len()],
    /// A ring buffer. A second's index is its number modulo the length.
    seconds: Box<[Second; SECONDS]>,
}

/// The tasks that ended in one second.
#[derive(Clone, Copy, Default)]
pub(crate) struct Second {
    /// How many seconds after the tally was made this second begins.
    number: u64,
    pub(crate) ended: u32,
    /// How many of the ended tasks had begun.
    pub(crate) begun: u32,
    /// Sums over the tasks that had begun.
    pub(crate) waited: Duration,
    pub(crate) ran: Duration,
}

#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) at: Instant,
    pub(crate) id: TaskId,
    pub(crate) name: Cow<'static, str>,
    /// The end in one word.
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

    pub(crate) fn count(
        &self,
        label: &Label,
        begun: Option<Instant>,
        end: &TaskEnd,
        request: Option<&RequestInfo>,
    ) {
        let now = Instant::now();
        let name = label.name.of_the_program().unwrap_or(DYNAMIC);
        let second = self.second(now);
        let mut groups = lock(self.groups.this());
        let index = index_of(&mut groups, name, request);
        let (_, group) = &mut groups[index];
        group.ends[end.index()] += 1;
        group.second_mut(second).count(label.added, begun, now);
    }

    pub(crate) fn keep_failure(&self, report: &Report<'_>) {
        if !report.end.is_error() {
            return;
        }
        let failure = Failure::of(report);
        let mut failures = lock(&self.failures);
        let oldest = (failures.len() == FAILURES).then(|| oldest_of_most(&mut failures));
        failures.push_back(failure);
        drop(failures);
        drop(oldest);
    }

    /// Returns the kept failures, newest first.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        lock(&self.failures).iter().rev().cloned().collect()
    }

    /// Returns the groups, the busiest first and `(others)` last. Each comes with its seconds, the
    /// oldest first.
    pub(crate) fn groups(&self, now: Instant) -> Vec<(GroupKey, Group, [Second; SECONDS])> {
        let (mut all, mut others) = (BTreeMap::<GroupKey, Group>::new(), Group::default());
        for shard in self.groups.iter() {
            for (key, group) in &*lock(shard) {
                let sum = match *key == GroupKey::others() {
                    true => &mut others,
                    false => all.entry(key.clone()).or_default(),
                };
                sum.add(group);
            }
        }
        let last = self.second(now);
        let lately = |group: &Group| -> u32 {
            let seconds = group.last_seconds(last);
            seconds.iter().map(|second| second.ended).sum()
        };
        let mut groups: Vec<_> = all.into_iter().collect();
        groups.sort_by_key(|(_, group)| {
            let ended: u64 = group.ends.iter().sum();
            Reverse((lately(group), ended))
        });
        // Each shard has its own bound, so there may be more groups in all.
        for (_, rest) in groups.split_off(groups.len().min(GROUPS)) {
            others.add(&rest);
        }
        if others.ends.iter().any(|&ended| ended > 0) {
            groups.push((GroupKey::others(), others));
        }
        let with_seconds = |(key, group): (GroupKey, Group)| {
            let seconds = group.last_seconds(last);
            (key, group, seconds)
        };
        groups.into_iter().map(with_seconds).collect()
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    fn second(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_secs()
    }
}

/// Removes the oldest failure with the most frequent end. So a flood of refused tasks does not
/// displace the errors of tasks that ran.
fn oldest_of_most(failures: &mut VecDeque<Failure>) -> Option<Failure> {
    let count = |end| failures.iter().filter(|failure| failure.end == end).count();
    let most = TaskEnd::WORDS.iter().max_by_key(|end| count(**end))?;
    let oldest = failures.iter().position(|failure| failure.end == *most)?;
    failures.remove(oldest)
}

/// Returns the index of a group. Adds the group if it is new, or returns that of `(others)` if the
/// shard is full.
fn index_of(
    groups: &mut Vec<(GroupKey, Group)>,
    name: &'static str,
    request: Option<&RequestInfo>,
) -> usize {
    let find = |name: &'static str, route: Option<&str>| {
        let is_it =
            |(key, _): &(GroupKey, Group)| ptr::eq(key.name, name) && key.route.as_deref() == route;
        groups.iter().position(is_it)
    };
    if let Some(index) = find(name, request.and_then(RequestInfo::route)) {
        return index;
    }
    let is_full = groups.len() >= GROUPS;
    if let Some(others) = is_full.then(|| find(OTHERS, None)).flatten() {
        return others;
    }
    let key = match is_full {
        true => GroupKey::others(),
        false => GroupKey {
            name,
            route: request.and_then(RequestInfo::shared_route),
        },
    };
    groups.push((key, Group::default()));
    groups.len() - 1
}

impl GroupKey {
    fn others() -> Self {
        let (name, route) = (OTHERS, None);
        Self { name, route }
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
    /// Returns the second of this number. An older second at the same index is replaced.
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
                continue; // the other second is older
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

impl Second {
    fn count(&mut self, added: Instant, begun: Option<Instant>, now: Instant) {
        self.ended += 1;
        if let Some(begun) = begun {
            self.begun += 1;
            self.waited += begun.duration_since(added);
            self.ran += now.duration_since(begun);
        }
    }
}

fn place(number: u64) -> usize {
    (number % SECONDS as u64) as usize
}

impl Failure {
    fn of(report: &Report<'_>) -> Self {
        let error = report.end.error().map(|error| cut(error, LONGEST_ERROR));
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
