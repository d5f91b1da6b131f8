//! [`TaskSpan`]: the `tracing` span that a task runs in. Without the feature, or without a subscriber, it is nothing.

#[cfg(feature = "tracing")]
use tracing::{Span, dispatcher::with_default, level_filters::LevelFilter};

use crate::{Runner, task::Label, task::request_line::RequestLine};
#[cfg(feature = "tracing")]
use crate::{
    runner::builder::SpanRelation,
    util::contain::{contain, contain_drop},
};

/// The span that was current when a task was added.
///
/// It is kept until the task begins, and the span stays open for as long.
pub(crate) struct AddedIn {
    #[cfg(feature = "tracing")]
    span: Option<Span>,
}

impl AddedIn {
    /// `None` where there is no span, or it would not be used. Without a subscriber it is one load to know.
    #[inline]
    pub(crate) fn current(runner: Option<&Runner>) -> Option<Self> {
        #[cfg(feature = "tracing")]
        {
            let unused = runner.is_some_and(|runner| runner.span_relation() == SpanRelation::None);
            if LevelFilter::current() == LevelFilter::OFF || unused {
                return None;
            }
            let span = contain(Span::current).ok()?;
            (!span.is_none()).then_some(Self { span: Some(span) })
        }
        #[cfg(not(feature = "tracing"))]
        {
            let _ = runner;
            None
        }
    }
}

/// A subscriber is code of the user's: when it closes a span, too.
impl Drop for AddedIn {
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        let _ = contain_drop(self.span.take());
    }
}

/// The span `background_task` of one task. It is entered around whatever is the task's: each poll, its destructor, its end.
#[derive(Default)]
pub(crate) struct TaskSpan {
    /// `None` where nobody subscribes to it.
    #[cfg(feature = "tracing")]
    span: Option<Box<Span>>,
}

impl TaskSpan {
    /// Opens the span of a task that begins. A subscriber that panics has none.
    #[inline]
    pub(crate) fn open(
        label: impl FnOnce() -> Option<Label>,
        added_in: Option<&AddedIn>,
        runner: Option<&Runner>,
        request: Option<&RequestLine>,
    ) -> Self {
        #[cfg(feature = "tracing")]
        {
            if LevelFilter::current() < LevelFilter::INFO {
                return Self::default();
            }
            let Some(label) = label() else {
                return Self::default();
            };
            let relation = runner.map(Runner::span_relation).unwrap_or_default();
            let added_in = added_in
                .as_ref()
                .and_then(|added_in| added_in.span.as_ref());
            let span = contain(|| open_span(&label, added_in, relation, request))
                .ok()
                .flatten();
            Self { span }
        }
        #[cfg(not(feature = "tracing"))]
        {
            let _ = (label, added_in, runner, request);
            Self::default()
        }
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        #[cfg(feature = "tracing")]
        return self.span.is_none();
        #[cfg(not(feature = "tracing"))]
        true
    }

    /// Calls `f` in the span. A panic of the subscriber's at entering it leaves `f` without; one at leaving it is contained. What
    /// panics in `f` is the caller's to contain.
    #[inline]
    pub(crate) fn in_scope<R>(&self, f: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        if let Some(span) = &self.span {
            let _entered = Entered(contain(|| span.enter()).ok());
            return f();
        }
        f()
    }
}

#[cfg(feature = "tracing")]
fn open_span(
    label: &Label,
    added_in: Option<&Span>,
    relation: SpanRelation,
    request: Option<&RequestLine>,
) -> Option<Box<Span>> {
    let open = |parent: Option<tracing::span::Id>| {
        tracing::info_span!(
            target: "tower_background_tasks",
            parent: parent,
            "background_task",
            task.id = %label.id,
            task.name = &*label.name(), // as a `str`: a subscriber escapes it
            task.kind = label.kind().as_str(),
            task.location = %label.location,
            request.method = request.map(|request| request.method.as_str()),
            request.path = request.and_then(RequestLine::path),
        )
    };
    // An id means something only to the subscriber that gave it, which need not be this thread's.
    let span = match (relation, added_in) {
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
    };
    (!span.is_disabled()).then(|| Box::new(span))
}

/// A subscriber is told of each clone; one that panics has none.
impl Clone for TaskSpan {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: self
                .span
                .as_ref()
                .and_then(|span| contain(|| span.clone()).ok()),
        }
    }
}

/// Leaves a span, contained.
#[cfg(feature = "tracing")]
struct Entered<'a>(Option<tracing::span::Entered<'a>>);

#[cfg(feature = "tracing")]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let _ = contain_drop(self.0.take());
    }
}

impl Drop for TaskSpan {
    #[inline]
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        if let Some(span) = self.span.take() {
            let _ = contain_drop(span);
        }
    }
}
