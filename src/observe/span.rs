//! [`TaskSpan`]: the `tracing` span in which a task runs. It is empty without the feature
//! `tracing`, or without a subscriber.

#[cfg(feature = "tracing")]
use std::sync::Arc;

#[cfg(feature = "tracing")]
use tracing::{Span, dispatcher::with_default, field, level_filters::LevelFilter};

#[cfg(feature = "tracing")]
use super::report::line_of;
use crate::task::{added_in::AddedIn, end::TaskEnd, label::Label, request_info::RequestInfo};
#[cfg(feature = "tracing")]
use crate::util::contain::{contain, contain_drop};

/// How the span of a task relates to the span that was current when the task was added. That is
/// usually the request's span.
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpanRelation {
    /// The task's span follows from that span: the two are linked. The request's span stays open
    /// until each of its tasks has begun.
    #[default]
    FollowsFrom,
    /// The task's span is a child of that span. The request's span stays open until its tasks have
    /// ended.
    ///
    /// Do not use this for a task that adds itself again and again. Each new span is a child of
    /// the previous one, and a child keeps all its ancestors open. The spans close, and free their
    /// memory, only when the last task has ended.
    Child,
    /// The task's span is a root, without a link to that span.
    None,
}

/// One task's span, `background_task`. Its field `otel.name` has the task's name. The task's
/// condition, polls and destructor run in the span, and the event of its end is logged there.
#[derive(Clone, Default)]
pub(crate) struct TaskSpan {
    /// `None` if no subscriber wants the span. Clones share it, so that a subscriber sees one
    /// handle.
    #[cfg(feature = "tracing")]
    span: Option<Arc<Contained>>,
}

/// Contains a panic of the subscriber, which is user code, when the span is dropped.
#[cfg(feature = "tracing")]
struct Contained(Option<Span>);

#[cfg(feature = "tracing")]
impl Drop for Contained {
    fn drop(&mut self) {
        let _ = contain_drop(self.0.take());
    }
}

/// What a task's span is made from.
#[cfg_attr(
    not(feature = "tracing"),
    expect(dead_code, reason = "there are no spans")
)]
pub(crate) struct SpanOf<'a> {
    pub(crate) added_in: Option<&'a AddedIn>,
    pub(crate) request: Option<&'a RequestInfo>,
    #[cfg(feature = "tracing")]
    pub(crate) relation: SpanRelation,
}

impl TaskSpan {
    /// Returns true if a subscriber may want spans of tasks. This costs one atomic load.
    #[inline]
    pub(crate) fn is_wanted() -> bool {
        #[cfg(feature = "tracing")]
        return LevelFilter::current() >= LevelFilter::INFO;
        #[cfg(not(feature = "tracing"))]
        false
    }

    /// Opens the span of a task that begins. If the subscriber panics, the task has no span.
    #[inline]
    pub(crate) fn open(of: &SpanOf<'_>, label: impl FnOnce() -> Option<Label>) -> Self {
        #[cfg(feature = "tracing")]
        if Self::is_wanted() {
            return match label() {
                Some(label) => Self::opened(|| open_span(of, &label)),
                None => Self::default(),
            };
        }
        let _ = (of, label);
        Self::default()
    }

    /// Takes the span that `open` opens. If the subscriber panics, there is no span.
    #[cfg(feature = "tracing")]
    pub(crate) fn opened(open: impl FnOnce() -> Span) -> Self {
        let span = contain(open).ok().filter(|span| !span.is_disabled());
        let span = span.map(|span| Arc::new(Contained(Some(span))));
        Self { span }
    }

    /// Returns the span, or `None` if no subscriber wants it.
    #[cfg(all(feature = "jobs", feature = "tracing"))]
    pub(crate) fn get(&self) -> Option<&Span> {
        self.span.as_deref()?.0.as_ref()
    }

    /// Returns the span that is current on this thread, for work that is a part of it.
    pub(crate) fn current() -> Self {
        #[cfg(feature = "tracing")]
        if LevelFilter::current() != LevelFilter::OFF {
            return Self::opened(Span::current);
        }
        Self::default()
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        #[cfg(feature = "tracing")]
        return self.span.is_none();
        #[cfg(not(feature = "tracing"))]
        true
    }

    /// Marks the span of a task that ends with an error.
    pub(crate) fn record_end(&self, end: &TaskEnd) {
        if end.is_error() {
            self.record_error(end.as_str());
        }
    }

    /// Marks the span as failed, by OpenTelemetry's conventions.
    pub(crate) fn record_error(&self, error_type: &str) {
        #[cfg(feature = "tracing")]
        if let Some(Contained(Some(span))) = self.span.as_deref() {
            let _ = contain(|| {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", error_type);
            });
        }
        #[cfg(not(feature = "tracing"))]
        let _ = error_type;
    }

    /// Calls `f` in the span. If the subscriber panics on entry, `f` runs outside the span. If it
    /// panics on exit, the panic is contained. The caller contains panics of `f`.
    #[inline]
    pub(crate) fn in_scope<R>(&self, f: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        if let Some(Contained(Some(span))) = self.span.as_deref() {
            let _entered = Entered(contain(|| span.enter()).ok());
            return f();
        }
        f()
    }
}

#[cfg(feature = "tracing")]
fn open_span(of: &SpanOf<'_>, label: &Label) -> Span {
    let (request, added_in) = (of.request, of.added_in.and_then(AddedIn::span));
    let open = |parent: Option<tracing::span::Id>| {
        tracing::info_span!(
            target: "tower_background_tasks",
            parent: parent,
            "background_task",
            otel.name = &*label.name(), // as a `str`: a subscriber escapes it
            otel.kind = "internal",
            otel.status_code = field::Empty,
            error.type = field::Empty,
            task.id = %label.id,
            task.kind = label.kind.as_str(),
            code.file.path = label.location.file(),
            code.line.number = line_of(label.location),
            http.request.method = request.map(|request| request.method.as_str()),
            url.path = request.and_then(RequestInfo::path),
            http.route = request.and_then(RequestInfo::route),
            request.id = request.and_then(RequestInfo::id),
        )
    };
    // A span's id is valid only for the subscriber that gave it. This thread may have another
    // subscriber.
    match (of.relation, added_in) {
        (SpanRelation::Child, Some(parent)) => parent
            .with_subscriber(|(id, dispatch)| with_default(dispatch, || open(Some(id.clone()))))
            .unwrap_or_else(|| open(None)),
        (SpanRelation::FollowsFrom, Some(cause)) => cause
            .with_subscriber(|(id, dispatch)| {
                with_default(dispatch, || {
                    let span = open(None);
                    span.follows_from(id);
                    span
                })
            })
            .unwrap_or_else(|| open(None)),
        _ => open(None),
    }
}

/// Exits a span when dropped, with panics contained.
#[cfg(feature = "tracing")]
struct Entered<'a>(Option<tracing::span::Entered<'a>>);

#[cfg(feature = "tracing")]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let _ = contain_drop(self.0.take());
    }
}
