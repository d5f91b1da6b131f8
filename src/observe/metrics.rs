//! Counters, gauges and histograms through the [`metrics`](https://docs.rs/metrics) facade, from
//! the first task on. Nothing without the feature.
//!
//! The label `task` is a task's name if that is a part of the program: a type name, or a `&'static
//! str` that it was given. A name made at run time could be anything, even a user's input, and each
//! would be a time series of its own. All of those are `(dynamic)`.
//!
//! A task is in its queue before it is counted as added. If it begins on another thread in between,
//! it leaves the pending gauge before it has entered it. A scrape in that moment reads one too few,
//! even below zero. Afterwards the gauge is right.

#[cfg(feature = "metrics")]
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::report::Report;
use crate::task::Task;
#[cfg(feature = "metrics")]
use crate::task::label::Name;
#[cfg(feature = "metrics")]
use crate::{task::end::TaskEnd, util::contain::contain};

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

/// Tells the recorder what the metrics mean, if it is installed by now.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    {
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
    }
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
}

#[inline]
pub(crate) fn added(name: MetricName) {
    #[cfg(feature = "metrics")]
    {
        let MetricName(task) = name;
        // A recorder is user code.
        let _ = contain(|| {
            counter!(ADDED, "task" => task).increment(1);
            gauge!(PENDING, "task" => task).increment(1.0);
        });
    }
    #[cfg(not(feature = "metrics"))]
    let _ = name;
}

#[inline]
pub(crate) fn begun(name: MetricName) {
    #[cfg(feature = "metrics")]
    {
        let MetricName(task) = name;
        let _ = contain(|| {
            gauge!(PENDING, "task" => task).decrement(1.0);
            gauge!(RUNNING, "task" => task).increment(1.0);
        });
    }
    #[cfg(not(feature = "metrics"))]
    let _ = name;
}

/// Records an end. The caller contains this.
pub(crate) fn ended(report: &Report<'_>) {
    #[cfg(feature = "metrics")]
    {
        let MetricName(task) = MetricName::of(&report.label.name);
        counter!(ENDED, "task" => task, "end" => report.end.as_str()).increment(1);
        match report.begun {
            Some(_) => gauge!(RUNNING, "task" => task).decrement(1.0),
            None => gauge!(PENDING, "task" => task).decrement(1.0),
        }
        if report.begun.is_some() {
            histogram!(WAITED, "task" => task).record(report.waited());
        }
        if report.begun.is_some() && !matches!(report.end, TaskEnd::Skipped(_)) {
            histogram!(RAN, "task" => task).record(report.ran());
        }
    }
    #[cfg(not(feature = "metrics"))]
    let _ = report;
}
