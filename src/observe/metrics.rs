//! Counters, gauges and histograms through the [`metrics`](https://docs.rs/metrics) facade, from
//! the first task on. Nothing without the feature.
//!
//! 1. The label `task` is a task's name if that is a part of the program: a type name, or a
//!    `&'static str` that it was given. A name made at run time could be anything, even a user's
//!    input, and each would be a time series of its own. All of those are `(dynamic)`. The label
//!    `route` is there only where the runner knows routes.
//! 2. As a task of a new name or route is counted, the counts of all ends are made, at zero. A rate
//!    over a count that appears with its first failure misses that failure.
//! 3. A task is in its queue before it is counted as added. If it begins on another thread in
//!    between, it leaves the pending gauge before it has entered it. A scrape in that moment reads
//!    one too few, even below zero. Afterwards the gauge is right.
//! 4. A recorder is user code: no lock of a queue is held, and its panics are contained.

#[cfg(feature = "metrics")]
use std::{collections::HashSet, sync::Arc};

#[cfg(feature = "metrics")]
use metrics::{
    Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

#[cfg(feature = "metrics")]
use super::limit_use::LimitUse;
use super::report::Report;
use crate::task::{Task, label::Name, request_info::RequestInfo};
#[cfg(feature = "metrics")]
use crate::{
    task::end::TaskEnd,
    util::{
        contain::contain,
        sync::{Mutex, lock},
    },
};

#[cfg(feature = "metrics")]
const ADDED: &str = "background_tasks_added_total";
#[cfg(feature = "metrics")]
const ENDED: &str = "background_tasks_ended_total";
#[cfg(feature = "metrics")]
const PENDING: &str = "background_tasks_pending";
#[cfg(feature = "metrics")]
const RUNNING: &str = "background_tasks_running";
#[cfg(feature = "metrics")]
const WAITED: &str = "background_tasks_waiting_seconds";
#[cfg(feature = "metrics")]
const RAN: &str = "background_tasks_running_seconds";
#[cfg(feature = "metrics")]
const SLOW_POLLS: &str = "background_tasks_slow_polls_total";
#[cfg(feature = "metrics")]
const AWAITING: &str = "background_tasks_awaiting_response";
#[cfg(feature = "metrics")]
const OVERDUE: &str = "background_tasks_overdue";
#[cfg(feature = "metrics")]
const LIMIT: &str = "background_tasks_limit";
#[cfg(feature = "metrics")]
const LIMIT_USED: &str = "background_tasks_limit_used";

/// The metrics of one runner.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Tasks whose counts have been made.
    #[cfg(feature = "metrics")]
    known: Mutex<HashSet<Series>>,
}

#[cfg(feature = "metrics")]
#[derive(Clone, PartialEq, Eq, Hash)]
struct Series {
    task: &'static str,
    route: Option<Arc<str>>,
}

/// The label of a task. It is taken while the queue is locked, and recorded afterwards.
#[derive(Clone, Copy)]
pub(crate) struct MetricName(#[cfg(feature = "metrics")] &'static str);

impl MetricName {
    #[inline]
    pub(crate) fn of_task(task: &Task) -> Self {
        #[cfg(feature = "metrics")]
        return Self::of(&task.own_name());
        #[cfg(not(feature = "metrics"))]
        {
            let _ = task;
            Self()
        }
    }

    #[cfg(feature = "metrics")]
    fn of(name: &Name) -> Self {
        Self(name.of_the_program().unwrap_or("(dynamic)"))
    }

    #[cfg(feature = "metrics")]
    fn series(self, request: Option<&RequestInfo>) -> Series {
        let Self(task) = self;
        let route = request.and_then(RequestInfo::shared_route);
        Series { task, route }
    }
}

impl Metrics {
    /// Tells the recorder what the metrics mean, if it is installed by now.
    pub(crate) fn new() -> Self {
        #[cfg(feature = "metrics")]
        let _ = contain(describe);
        Self::default()
    }

    #[inline]
    pub(crate) fn added(&self, name: MetricName, request: Option<&RequestInfo>) {
        #[cfg(feature = "metrics")]
        let _ = contain(|| {
            let series = name.series(request);
            if !lock(&self.known).contains(&series) {
                series.make_ends();
                lock(&self.known).insert(series.clone());
            }
            counter!(ADDED, series.labels()).increment(1);
            gauge!(PENDING, series.labels()).increment(1.0);
        });
        #[cfg(not(feature = "metrics"))]
        let _ = (name, request);
    }

    #[inline]
    pub(crate) fn begun(&self, name: MetricName, request: Option<&RequestInfo>) {
        #[cfg(feature = "metrics")]
        let _ = contain(|| {
            let series = name.series(request);
            gauge!(PENDING, series.labels()).decrement(1.0);
            gauge!(RUNNING, series.labels()).increment(1.0);
        });
        #[cfg(not(feature = "metrics"))]
        let _ = (name, request);
    }

    pub(crate) fn ended(&self, report: &Report<'_>) {
        #[cfg(feature = "metrics")]
        let _ = contain(|| {
            let series = MetricName::of(&report.label.name).series(report.request);
            counter!(ENDED, series.with_end(report.end.as_str())).increment(1);
            let has_begun = report.begun.is_some();
            gauge!(if has_begun { RUNNING } else { PENDING }, series.labels()).decrement(1.0);
            if has_begun {
                histogram!(WAITED, series.labels()).record(report.waited());
            }
            if has_begun && !matches!(report.end, TaskEnd::Skipped(_)) {
                histogram!(RAN, series.labels()).record(report.ran());
            }
        });
        #[cfg(not(feature = "metrics"))]
        let _ = report;
    }

    pub(crate) fn slow_poll(&self, name: &Name, request: Option<&RequestInfo>) {
        #[cfg(feature = "metrics")]
        let _ = contain(|| {
            let series = MetricName::of(name).series(request);
            counter!(SLOW_POLLS, series.labels()).increment(1);
        });
        #[cfg(not(feature = "metrics"))]
        let _ = (name, request);
    }
}

/// What changes too often to be recorded at each change.
#[cfg(feature = "metrics")]
pub(crate) struct Gauges {
    pub(crate) awaiting_response: u64,
    pub(crate) overdue: usize,
    pub(crate) limits: Vec<LimitUse>,
}

#[cfg(feature = "metrics")]
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

#[cfg(feature = "metrics")]
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

    fn make_ends(&self) {
        for end in TaskEnd::WORDS {
            counter!(ENDED, self.with_end(end)).increment(0);
        }
        counter!(SLOW_POLLS, self.labels()).increment(0);
    }
}

#[cfg(feature = "metrics")]
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
