//! Makes the JSON that the page shows.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    Runner, Stats, TaskInfo, TaskState,
    observe::{
        limit_use::LimitUse,
        tally::{Failure, Group, GroupKey, SECONDS, Second},
    },
    task::{end::TaskEnd, request_info::RequestInfo},
};

/// The maximum number of tasks in a snapshot.
const TASKS: usize = 200;

#[derive(Serialize)]
struct Snapshot<'a> {
    /// Unix time, in seconds.
    now: f64,
    /// Seconds since counting began, at the first call of [`Runner::dashboard`].
    uptime_seconds: f64,
    allow_cancel: bool,
    state: &'static str,
    /// How long the current step of a shutdown may still take, in seconds.
    deadline_seconds: Option<f64>,
    totals: Totals,
    limits: Vec<Limit>,
    slow_polls: u64,
    overdue: usize,
    tasks: Vec<Task<'a>>,
    tasks_total: u64,
    groups: Vec<GroupRow<'a>>,
    failures: Vec<FailureRow<'a>>,
}

#[derive(Serialize)]
struct Totals {
    added: u64,
    #[serde(flatten)]
    ends: BTreeMap<&'static str, u64>,
    awaiting_response: u64,
    pending: u64,
    running: u64,
}

#[derive(Serialize)]
struct Limit {
    name: &'static str,
    used: usize,
    limit: usize,
}

#[derive(Serialize)]
struct Task<'a> {
    id: u64,
    name: &'a str,
    kind: &'static str,
    state: &'static str,
    age_seconds: f64,
    running_seconds: Option<f64>,
    progress: Option<f64>,
    request: Option<RequestRow<'a>>,
    location: String,
}

#[derive(Serialize)]
struct RequestRow<'a> {
    method: &'a str,
    path: Option<&'a str>,
    route: Option<&'a str>,
    id: Option<&'a str>,
}

#[derive(Serialize)]
struct GroupRow<'a> {
    name: &'a str,
    route: Option<&'a str>,
    ends: BTreeMap<&'static str, u64>,
    /// Averaged over the buckets below, or since counting began if that is shorter.
    per_second: f64,
    bucket_seconds: u32,
    ended: Vec<u32>,
    /// Means over each bucket, here and below. `None` if no task that ended in it had begun.
    waiting_seconds: Vec<Option<f64>>,
    running_seconds: Vec<Option<f64>>,
}

#[derive(Serialize)]
struct FailureRow<'a> {
    seconds_ago: f64,
    id: u64,
    name: &'a str,
    end: &'static str,
    error: Option<&'a str>,
    request: Option<RequestRow<'a>>,
    location: String,
}

pub(super) fn json(runner: &Runner, allow_cancel: bool) -> Vec<u8> {
    let (owner, now) = (runner.owner(), Instant::now());
    let (shared, tally) = (&owner.shared, owner.shared.tally());
    let (rows, failures, groups) = (
        owner.first_infos(TASKS),
        tally.failures(),
        tally.groups(now),
    );
    let (stats, overdue) = (runner.stats(), shared.overdue());
    let (deadline, uptime) = (
        shared.deadline(),
        now.duration_since(tally.since()).as_secs_f64(),
    );
    let unfinished = stats.awaiting_response + stats.pending + stats.running;
    let snapshot = Snapshot {
        now: unix_time().as_secs_f64(),
        uptime_seconds: uptime,
        allow_cancel,
        state: state_of(runner),
        deadline_seconds: deadline.map(|deadline| deadline.duration_since(now).as_secs_f64()),
        totals: Totals::of(&stats),
        limits: runner.limits().into_iter().map(Limit::from).collect(),
        slow_polls: shared.slow_polls(),
        overdue,
        tasks: rows.iter().map(Task::of).collect(),
        tasks_total: unfinished + overdue as u64,
        groups: groups
            .iter()
            .map(|group| GroupRow::of(group, uptime))
            .collect(),
        failures: failures
            .iter()
            .map(|failure| FailureRow::of(failure, now))
            .collect(),
    };
    // All keys are strings and all numbers are finite, so this cannot fail.
    serde_json::to_vec(&snapshot).unwrap_or_default()
}

fn unix_time() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

fn state_of(runner: &Runner) -> &'static str {
    if runner.owner().queues.is_closed() {
        "shut_down"
    } else if runner.is_shutting_down() {
        "shutting_down"
    } else if runner.is_ready() {
        "ready"
    } else {
        "unready"
    }
}

fn ends(counts: &[u64]) -> BTreeMap<&'static str, u64> {
    let words = TaskEnd::WORDS.iter().copied();
    words.zip(counts.iter().copied()).collect()
}

impl Totals {
    fn of(stats: &Stats) -> Self {
        let counts = [
            stats.completed,
            stats.failed,
            stats.panicked,
            stats.timed_out,
            stats.skipped,
            stats.rejected,
            stats.aborted,
            #[cfg(feature = "jobs")]
            stats.spilled,
        ];
        Self {
            added: stats.added,
            ends: ends(&counts),
            awaiting_response: stats.awaiting_response,
            pending: stats.pending,
            running: stats.running,
        }
    }
}

impl From<LimitUse> for Limit {
    fn from(LimitUse { name, used, limit }: LimitUse) -> Self {
        Self { name, used, limit }
    }
}

impl<'a> Task<'a> {
    fn of(row: &'a TaskInfo) -> Self {
        Self {
            id: row.id().as_u64(),
            name: row.name(),
            kind: row.kind().as_str(),
            state: match row.state() {
                TaskState::Waiting => "waiting",
                TaskState::Running => "running",
                TaskState::Overdue => "overdue",
            },
            age_seconds: row.age().as_secs_f64(),
            running_seconds: row.running_for().map(|time| time.as_secs_f64()),
            progress: row.progress(),
            request: row.request().map(RequestRow::of),
            location: row.location().to_string(),
        }
    }
}

impl<'a> RequestRow<'a> {
    fn of(request: &'a RequestInfo) -> Self {
        Self {
            method: request.method().as_str(),
            path: request.path(),
            route: request.route(),
            id: request.id(),
        }
    }
}

impl<'a> GroupRow<'a> {
    fn of((key, group, seconds): &'a (GroupKey, Group, [Second; SECONDS]), uptime: f64) -> Self {
        let mean = |sum: Duration, second: &Second| {
            (second.begun > 0).then(|| sum.as_secs_f64() / f64::from(second.begun))
        };
        let ended: u32 = seconds.iter().map(|second| second.ended).sum();
        Self {
            name: key.name,
            route: key.route.as_deref(),
            ends: ends(&group.ends),
            per_second: f64::from(ended) / uptime.clamp(1.0, SECONDS as f64),
            bucket_seconds: 1,
            ended: seconds.iter().map(|second| second.ended).collect(),
            waiting_seconds: seconds
                .iter()
                .map(|second| mean(second.waited, second))
                .collect(),
            running_seconds: seconds
                .iter()
                .map(|second| mean(second.ran, second))
                .collect(),
        }
    }
}

impl<'a> FailureRow<'a> {
    fn of(failure: &'a Failure, now: Instant) -> Self {
        Self {
            seconds_ago: now.duration_since(failure.at).as_secs_f64(),
            id: failure.id.as_u64(),
            name: &failure.name,
            end: failure.end,
            error: failure.error.as_deref(),
            request: failure.request.as_ref().map(RequestRow::of),
            location: failure.location.to_string(),
        }
    }
}
