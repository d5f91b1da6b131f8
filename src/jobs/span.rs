//! [`JobSpan`]: the `tracing` span in which a worker runs a job. It is empty without the feature
//! `tracing`, or without a subscriber.

use super::{job_report::JobEnd, registered::Registry};
use crate::StoredJob;
#[cfg(feature = "tracing")]
use crate::util::contain::contain;

pub(crate) struct JobSpan {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl JobSpan {
    /// Opens the span as a child of the worker's current span, if there is one.
    pub(crate) fn open(registry: &Registry, stored: &StoredJob, attempt: u32) -> Self {
        #[cfg(feature = "tracing")]
        {
            let span =
                contain(|| span_of(stored, attempt)).unwrap_or_else(|_| tracing::Span::none());
            if let (Some(link), false) = (registry.link(), span.is_disabled()) {
                let _ = contain(|| link(&span, stored));
            }
            Self { span }
        }
        #[cfg(not(feature = "tracing"))]
        {
            let _ = (registry, stored, attempt);
            Self {}
        }
    }

    /// Marks the span of an attempt that did not complete, by OpenTelemetry's conventions.
    pub(crate) fn record_end(&self, end: JobEnd) {
        #[cfg(feature = "tracing")]
        if end != JobEnd::Completed {
            let _ = contain(|| {
                self.span.record("otel.status_code", "ERROR");
                self.span.record("error.type", end.as_str());
            });
        }
        #[cfg(not(feature = "tracing"))]
        let _ = end;
    }

    /// Calls `f` in the span. This does not contain panics: the caller does.
    pub(crate) fn in_scope<R>(&self, f: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        return self.span.in_scope(f);
        #[cfg(not(feature = "tracing"))]
        f()
    }
}

#[cfg(feature = "tracing")]
fn span_of(stored: &StoredJob, attempt: u32) -> tracing::Span {
    let request = stored.request();
    tracing::info_span!(
        target: "tower_background_tasks",
        "background_task",
        task.id = %stored.id(),
        otel.name = stored.name(),
        otel.kind = "consumer",
        otel.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        task.kind = "job",
        task.attempt = i64::from(attempt),
        http.request.method = request.map(|request| &*request.method),
        url.path = request.map(|request| &*request.path),
        traceparent = stored.trace().get("traceparent").map(|parent| &**parent),
    )
}
