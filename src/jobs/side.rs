//! [`JobSide`]: what a queue knows for the jobs that are added to it.

use std::{collections::HashMap, sync::Arc};

use http::HeaderMap;

use super::registered::Registry;
use crate::Runner;

/// The headers of W3C's Trace Context.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

pub(crate) struct JobSide {
    /// Of a stand-alone queue that was made with jobs. Elsewhere the runner has them.
    pub(crate) jobs: Option<Arc<Registry>>,
    /// The trace that the request came with.
    pub(crate) trace: HashMap<String, String>,
}

impl JobSide {
    pub(crate) fn of_jobs(jobs: Arc<Registry>) -> Option<Box<Self>> {
        Some(Box::new(Self {
            jobs: Some(jobs),
            trace: HashMap::new(),
        }))
    }

    /// `None` where nothing is ever stored, or the request came with no trace.
    pub(crate) fn of_request(runner: &Runner, headers: &HeaderMap) -> Option<Box<Self>> {
        if !runner.job_settings().stores() {
            return None;
        }
        let header = |name| {
            Some((
                String::from(name),
                headers.get(name)?.to_str().ok()?.to_owned(),
            ))
        };
        let trace: HashMap<_, _> = TRACE_HEADERS.into_iter().filter_map(header).collect();
        (!trace.is_empty()).then(|| Box::new(Self { jobs: None, trace }))
    }
}
