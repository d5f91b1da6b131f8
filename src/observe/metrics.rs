//! Counters, gauges and histograms through the [`metrics`](https://docs.rs/metrics) facade. If the
//! feature `metrics` is off, `no_metrics.rs` replaces this file.
//!
//! 1. The label `task` is a task's name if the name is a part of the program: a type name, or a
//!    `&'static str`. A name that is made at run time may contain a user's input, and each would
//!    be a time series of its own. So all such names have the label `(dynamic)`. The label `route`
//!    exists only if the runner knows routes.
//! 2. The first task of a name and route registers the counters of all ends, at zero. Otherwise a
//!    counter would appear with its first failure, and a rate over it would miss that failure.
//! 3. A task is in its queue before it is counted as added. If it begins on another thread in
//!    between, the pending gauge is decremented before it is incremented. A scrape at that moment
//!    reads a value that is one too low, perhaps below zero.
//! 4. A recorder is user code. It is called without a queue's lock, and its panics are contained.

#[cfg(feature = "jobs")]
use std::time::Duration;
use std::{collections::HashMap, sync::Arc};

use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, Unit, describe_counter, describe_gauge,
    describe_histogram, gauge, with_recorder,
};
#[cfg(feature = "jobs")]
use metrics::{counter, histogram};

use super::{limit_use::LimitUse, report::Report};
use crate::{
    task::{Task, end::TaskEnd, label::Name, request_info::RequestInfo},
    util::{
        contain::contain,
        sync::{Mutex, lock},
    },
};

const ADDED: &str = "background_tasks_added_total";
const ENDED: &str = "background_tasks_ended_total";
const PENDING: &str = "background_tasks_pending";
const RUNNING: &str = "background_tasks_running";
const WAITED: &str = "background_tasks_waiting_seconds";
const RAN: &str = "background_tasks_running_seconds";
const SLOW_POLLS: &str = "background_tasks_slow_polls_total";
const AWAITING: &str = "background_tasks_awaiting_response";
const OVERDUE: &str = "background_tasks_overdue";
const LIMIT: &str = "background_tasks_limit";
const LIMIT_USED: &str = "background_tasks_limit_used";
#[cfg(feature = "jobs")]
const JOBS_ENDED: &str = "background_jobs_ended_total";
#[cfg(feature = "jobs")]
const JOBS_RAN: &str = "background_jobs_running_seconds";

#[derive(Default)]
pub(crate) struct Metrics {
    /// The keys of each series that has been counted.
    known: Mutex<HashMap<Series, Arc<Keys>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Series {
    task: &'static str,
    route: Option<Arc<str>>,
}

/// The recorder's keys for one series. They are kept, because making a key allocates and hashes.
struct Keys {
    added: Key,
    pending: Key,
    running: Key,
    waited: Key,
    ran: Key,
    slow_polls: Key,
    /// Indexed by [`TaskEnd::index`].
    ended: Vec<Key>,
}

/// The label `task` of a task. The caller reads it under the queue's lock, and records it after.
#[derive(Clone, Copy)]
pub(crate) struct MetricName(&'static str);

impl MetricName {
    #[inline]
    pub(crate) fn of_task(task: &Task) -> Self {
        Self::of(&task.own_name())
    }

    fn of(name: &Name) -> Self {
        Self(name.of_the_program().unwrap_or("(dynamic)"))
    }

    fn series(self, request: Option<&RequestInfo>) -> Series {
        let Self(task) = self;
        let route = request.and_then(RequestInfo::shared_route);
        Series { task, route }
    }
}

impl Metrics {
    /// Describes the metrics to the recorder, if one is installed.
    pub(crate) fn new() -> Self {
        let _ = contain(describe);
        Self::default()
    }

    #[inline]
    pub(crate) fn added(&self, name: MetricName, request: Option<&RequestInfo>) {
        let _ = contain(|| {
            let keys = self.keys(name, request);
            counter_of(&keys.added).increment(1);
            gauge_of(&keys.pending).increment(1.0);
        });
    }

    #[inline]
    pub(crate) fn begun(&self, name: MetricName, request: Option<&RequestInfo>) {
        let _ = contain(|| {
            let keys = self.keys(name, request);
            gauge_of(&keys.pending).decrement(1.0);
            gauge_of(&keys.running).increment(1.0);
        });
    }

    pub(crate) fn ended(&self, report: &Report<'_>) {
        let _ = contain(|| {
            let keys = self.keys(MetricName::of(&report.label.name), report.request);
            counter_of(&keys.ended[report.end.index()]).increment(1);
            if report.begun.is_none() {
                return gauge_of(&keys.pending).decrement(1.0);
            }
            gauge_of(&keys.running).decrement(1.0);
            histogram_of(&keys.waited).record(report.waited());
            if !matches!(report.end, TaskEnd::Skipped(_)) {
                histogram_of(&keys.ran).record(report.ran());
            }
        });
    }

    pub(crate) fn slow_poll(&self, name: &Name, request: Option<&RequestInfo>) {
        let _ = contain(|| {
            let keys = self.keys(MetricName::of(name), request);
            counter_of(&keys.slow_polls).increment(1);
        });
    }

    fn keys(&self, name: MetricName, request: Option<&RequestInfo>) -> Arc<Keys> {
        let series = name.series(request);
        let known = lock(&self.known).get(&series).map(Arc::clone);
        known.unwrap_or_else(|| {
            let keys = Arc::new(Keys::of(&series));
            keys.make_ends();
            Arc::clone(lock(&self.known).entry(series).or_insert(keys))
        })
    }
}

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

fn counter_of(key: &Key) -> Counter {
    with_recorder(|recorder| recorder.register_counter(key, &METADATA))
}

fn gauge_of(key: &Key) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(key, &METADATA))
}

fn histogram_of(key: &Key) -> Histogram {
    with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
}

/// Gauges that are recorded only on demand, because they change too often.
pub(crate) struct Gauges {
    pub(crate) awaiting_response: u64,
    pub(crate) overdue: usize,
    pub(crate) limits: Vec<LimitUse>,
}

impl Gauges {
    pub(crate) fn record(&self) {
        gauge!(AWAITING).set(self.awaiting_response as f64);
        gauge!(OVERDUE).set(self.overdue as f64);
        for &LimitUse { name, used, limit } in &self.limits {
            gauge!(LIMIT, "limit" => name).set(limit as f64);
            gauge!(LIMIT_USED, "limit" => name).set(used as f64);
        }
    }
}

/// Counts an attempt of a stored job that ended on a worker. `end` is one of `ends`. `name` is
/// `None` if the job is not registered: its stored name may be any text.
#[cfg(feature = "jobs")]
pub(crate) fn job_ended(
    name: Option<&'static str>,
    end: &'static str,
    ends: &[&'static str],
    ran: Duration,
) {
    let _ = contain(|| {
        let job = Label::from_static_parts("job", name.unwrap_or("(unknown)"));
        for &word in ends {
            let labels = vec![job.clone(), Label::from_static_parts("end", word)];
            counter!(JOBS_ENDED, labels).increment((word == end).into());
        }
        histogram!(JOBS_RAN, vec![job]).record(ran);
    });
}

impl Series {
    fn labels(&self) -> Vec<Label> {
        let mut labels = vec![Label::from_static_parts("task", self.task)];
        if let Some(route) = &self.route {
            labels.push(Label::new("route", Arc::clone(route)));
        }
        labels
    }

    fn with_end(&self, end: &'static str) -> Vec<Label> {
        let mut labels = self.labels();
        labels.push(Label::from_static_parts("end", end));
        labels
    }
}

impl Keys {
    fn of(series: &Series) -> Self {
        let key = |name| Key::from_parts(name, series.labels());
        let ends = TaskEnd::WORDS.iter();
        Self {
            added: key(ADDED),
            pending: key(PENDING),
            running: key(RUNNING),
            waited: key(WAITED),
            ran: key(RAN),
            slow_polls: key(SLOW_POLLS),
            ended: ends
                .map(|end| Key::from_parts(ENDED, series.with_end(end)))
                .collect(),
        }
    }

    fn make_ends(&self) {
        for key in &self.ended {
            counter_of(key).increment(0);
        }
        counter_of(&self.slow_polls).increment(0);
    }
}

/// Describes the metrics of jobs to the recorder, if one is installed.
#[cfg(feature = "jobs")]
pub(crate) fn describe_jobs() {
    let _ = contain(|| {
        describe_counter!(
            JOBS_ENDED,
            Unit::Count,
            "Attempts of stored jobs that ended on a worker, by how."
        );
        describe_histogram!(
            JOBS_RAN,
            Unit::Seconds,
            "From when an attempt of a stored job began until it ended."
        );
    });
}

fn describe() {
    describe_counter!(ADDED, Unit::Count, "Background tasks added.");
    describe_counter!(ENDED, Unit::Count, "Background tasks that ended, by how.");
    describe_gauge!(PENDING, Unit::Count, "Background tasks that wait.");
    describe_gauge!(RUNNING, Unit::Count, "Background tasks that run.");
    describe_histogram!(
        WAITED,
        Unit::Seconds,
        "From when a background task was added until it began."
    );
    describe_histogram!(
        RAN,
        Unit::Seconds,
        "From when a background task began until it ended."
    );
    describe_counter!(
        SLOW_POLLS,
        Unit::Count,
        "Polls of async background tasks that held their worker for too long."
    );
    describe_gauge!(
        AWAITING,
        Unit::Count,
        "Background tasks that wait for their response to end."
    );
    describe_gauge!(
        OVERDUE,
        Unit::Count,
        "Blocking background tasks that have timed out and whose threads still run."
    );
    describe_gauge!(LIMIT, Unit::Count, "The runner's limits.");
    describe_gauge!(LIMIT_USED, Unit::Count, "How much of each limit is used.");
}
