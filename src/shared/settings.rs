//! [`Settings`]: what a [`RunnerBuilder`](crate::RunnerBuilder) has set.

use std::{fmt, time::Duration};

use http::{Extensions, HeaderMap};
use tokio::runtime::Handle;

#[cfg(feature = "tracing")]
use crate::observe::span::SpanRelation;
use crate::{ResponseOutcome, observe::report::TaskReport, util::contain::contain_drop};

/// In which order the tasks of one request run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// One after another, in the order added.
    #[default]
    Sequential,
    /// Side by side, and started in no promised order.
    Concurrent,
}

/// What becomes of a request's other tasks when one fails: gives back an error, panics or times out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// They run.
    #[default]
    Continue,
    /// Those that have not begun end [`Skipped`](crate::TaskEnd::Skipped), and so do those added later: FastAPI's way.
    Stop,
}

type RunIf = Box<dyn Fn(&ResponseOutcome) -> bool + Send + Sync>;
type OnTaskEnd = Box<dyn Fn(&TaskReport<'_>) + Send + Sync>;
type OnRequest = Box<dyn Fn(&HeaderMap, &mut Extensions) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) order: Order,
    pub(crate) on_failure: OnFailure,
    pub(crate) max_running: Option<usize>,
    pub(crate) max_blocking: Option<usize>,
    pub(crate) max_pending: Option<usize>,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) run_if: Option<RunIf>,
    pub(crate) on_task_end: Option<OnTaskEnd>,
    pub(crate) runtime: Option<Handle>,
    pub(crate) slow_poll: Option<Duration>,
    #[cfg(feature = "tracing")]
    pub(crate) span_relation: SpanRelation,
    /// Notes in a request's queue what a room above wants to know of the request.
    pub(crate) on_request: Option<OnRequest>,
    /// What rooms above have set.
    pub(crate) extensions: Extensions,
}

impl Settings {
    /// A task may be kept from running, or cut short.
    #[inline]
    pub(crate) fn asks(&self) -> bool {
        self.run_if.is_some() || self.task_timeout.is_some() || self.on_failure == OnFailure::Stop
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.max_running.is_some() || self.max_blocking.is_some()
    }
}

/// Most of this is the user's code, and a connection may be the one that drops the last of a runner.
impl Drop for Settings {
    fn drop(&mut self) {
        let _ = contain_drop(self.run_if.take());
        let _ = contain_drop(self.on_task_end.take());
        let _ = contain_drop(self.on_request.take());
        let _ = contain_drop(std::mem::take(&mut self.extensions));
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("order", &self.order)
            .field("on_failure", &self.on_failure)
            .field("max_running", &self.max_running)
            .field("max_blocking", &self.max_blocking)
            .field("max_pending", &self.max_pending)
            .field("task_timeout", &self.task_timeout)
            .finish_non_exhaustive()
    }
}
