//! Replaces `metrics.rs` if the feature `metrics` is off. Its functions do nothing.

#[cfg(feature = "jobs")]
use std::time::Duration;

use super::report::Report;
use crate::task::{Task, label::Name, request_info::RequestInfo};

pub(crate) struct Metrics;

#[derive(Clone, Copy)]
pub(crate) struct MetricName;

impl MetricName {
    #[inline]
    pub(crate) fn of_task(_: &Task) -> Self {
        Self
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self
    }

    #[inline]
    pub(crate) fn added(&self, _: MetricName, _: Option<&RequestInfo>) {}

    #[inline]
    pub(crate) fn begun(&self, _: MetricName, _: Option<&RequestInfo>) {}

    pub(crate) fn ended(&self, _: &Report<'_>) {}

    pub(crate) fn slow_poll(&self, _: &Name, _: Option<&RequestInfo>) {}
}

#[cfg(feature = "jobs")]
pub(crate) fn job_ended(_: Option<&str>, _: &str, _: &[&str], _: Duration) {}

#[cfg(feature = "jobs")]
pub(crate) fn describe_jobs() {}
