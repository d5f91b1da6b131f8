//! [`JobSide`]: what a queue knows for the jobs that are added to it.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, HeaderValue};

use super::registered::Registry;
use crate::Runner;

/// The headers of W3C's Trace Context, and how many bytes of each are passed on at most. A `traceparent` has 55, and may have more in a
/// later version; 512 of `tracestate` are what everybody should pass on.
const TRACE_HEADERS: [(&str, usize); 2] = [("traceparent", 256), ("tracestate", 512)];

pub(crate) struct JobSide {
    /// Of a stand-alone queue that was made with jobs. Elsewhere the runner has them.
    pub(crate) jobs: Option<Arc<Registry>>,
    /// The trace that the request came with, in the order of [`TRACE_HEADERS`].
    trace: [Option<HeaderValue>; 2],
}

impl JobSide {
    pub(crate) fn of_jobs(jobs: Arc<Registry>) -> Option<Box<Self>> {
        Some(Box::new(Self {
            jobs: Some(jobs),
            trace: [None, None],
        }))
    }

    /// `None` where nothing is ever stored, or the request came with no trace.
    pub(crate) fn of_request(runner: &Runner, headers: &HeaderMap) -> Option<Box<Self>> {
        if !runner.job_settings().stores() {
            return None;
        }
        let trace = TRACE_HEADERS.map(|(name, limit)| {
            let value = headers.get(name)?;
            let fits = value.len() <= limit && value.to_str().is_ok();
            fits.then(|| value.clone())
        });
        // A `tracestate` says nothing without its `traceparent`.
        let has_trace = trace[0].is_some();
        has_trace.then(|| Box::new(Self { jobs: None, trace }))
    }

    /// The trace that the request came with, as far as it is text.
    pub(crate) fn trace(&self) -> HashMap<String, String> {
        let values = TRACE_HEADERS.iter().zip(&self.trace);
        let header = |((name, _), value): (&(&str, usize), &Option<HeaderValue>)| {
            let value = value.as_ref()?.to_str().ok()?;
            Some((String::from(*name), value.to_owned()))
        };
        values.filter_map(header).collect()
    }
}
