//! The `tracing` span in which a worker runs a job.

use super::registered::Registry;
#[cfg(feature = "tracing")]
use crate::util::contain::contain;
use crate::{StoredJob, observe::span::TaskSpan};

/// Opens the span as a child of the worker's current span, if there is one.
pub(super) fn open(registry: &Registry, stored: &StoredJob, attempt: u32) -> TaskSpan {
    #[cfg(feature = "tracing")]
    {
        let opened = TaskSpan::opened(|| span_of(stored, attempt));
        if let (Some(link), Some(span)) = (registry.link(), opened.get()) {
            let _ = contain(|| link(span, stored));
        }
        opened
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (registry, stored, attempt);
        TaskSpan::default()
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
