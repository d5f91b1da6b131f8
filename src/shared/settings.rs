//! [`Settings`]: what a [`RunnerBuilder`](crate::RunnerBuilder) has set.

use std::{fmt, time::Duration};

use http::{Extensions, HeaderName, request::Parts};
use tokio::runtime::Handle;

#[cfg(feature = "tracing")]
use crate::observe::span::SpanRelation;
use crate::{
    ResponseOutcome, observe::report::TaskReport, task::around::Around, util::contain::contain_drop,
};

/// The order in which the tasks of one request run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// One after another, in the order added.
    #[default]
    Sequential,
    /// Side by side, and started in no particular order.
    Concurrent,
}

/// What happens to a request's other tasks when one returns an error, panics or times out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// The other tasks run.
    #[default]
    Continue,
    /// Tasks that have not begun end [`Skipped`](crate::TaskEnd::Skipped), as do tasks added
    /// later. FastAPI does this.
    Stop,
}

type RunIf = Box<dyn Fn(&ResponseOutcome) -> bool + Send + Sync>;
type OnTaskEnd = Box<dyn Fn(&TaskReport<'_>) + Send + Sync>;
type OnRequest = Box<dyn Fn(&Parts, &mut Extensions) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) order: Order,
    pub(crate) on_failure: OnFailure,
    pub(crate) max_running: Option<usize>,
    pub(crate) max_blocking: Option<usize>,
    pub(crate) max_pending: Option<usize>,
    pub(crate) max_awaiting_response: Option<usize>,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) run_if: Option<RunIf>,
    pub(crate) on_task_end: Option<OnTaskEnd>,
    pub(crate) runtime: Option<Handle>,
    /// True if tasks are recorded as they are added, and none runs.
    pub(crate) recording: bool,
    pub(crate) slow_poll: Option<Duration>,
    pub(crate) slow_response: Option<Duration>,
    #[cfg(feature = "tracing")]
    pub(crate) log_repeats_every: Option<Duration>,
    #[cfg(feature = "tracing")]
    pub(crate) span_relation: SpanRelation,
    /// Each stores a value taken from a request as it arrives.
    pub(crate) on_request: Vec<OnRequest>,
    pub(crate) around: Option<Around>,
    pub(crate) request_id_header: Option<HeaderName>,
    /// Settings of the rooms above.
    pub(crate) extensions: Extensions,
}

impl Settings {
    /// True if a setting affects each task as it begins or while it runs.
    #[inline]
    pub(crate) fn attends(&self) -> bool {
        self.run_if.is_some()
            || self.task_timeout.is_some()
            || self.on_failure == OnFailure::Stop
            || self.slow_poll.is_some()
            || self.around.is_some()
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.max_running.is_some() || self.max_blocking.is_some()
    }
}

/// Most of these values are user code, so each drop is contained. A connection may drop the last
/// handle of a runner.
impl Drop for Settings {
    fn drop(&mut self) {
        let _ = contain_drop(self.run_if.take());
        let _ = contain_drop(self.on_task_end.take());
        for on_request in self.on_request.drain(..) {
            let _ = contain_drop(on_request);
        }
        let _ = contain_drop(self.around.take());
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
            .field("max_awaiting_response", &self.max_awaiting_response)
            .field("task_timeout", &self.task_timeout)
            .finish_non_exhaustive()
    }
}
