//! [`TaskSpan`]: the `tracing` span that a task runs in. Without the feature, or without a subscriber, it is nothing.

#[cfg(feature = "tracing")]
use tracing::{Span, level_filters::LevelFilter};

#[cfg(feature = "tracing")]
use crate::builder::SpanRelation;
use crate::{Runner, task::Label};

/// The span that was current when a task was added.
pub(crate) struct AddedIn {
    #[cfg(feature = "tracing")]
    span: Span,
}

impl AddedIn {
    /// `None` where there is no span. Without a subscriber it is one load to know.
    #[inline]
    pub(crate) fn current() -> Option<Self> {
        #[cfg(feature = "tracing")]
        {
            if LevelFilter::current() == LevelFilter::OFF {
                return None;
            }
            let span = Span::current();
            (!span.is_none()).then_some(Self { span })
        }
        #[cfg(not(feature = "tracing"))]
        None
    }
}

/// The span `background_task` of one task. It is entered around whatever is the task's: each poll, its destructor, its end.
#[derive(Clone, Default)]
pub(crate) struct TaskSpan {
    /// `None` where nobody subscribes to it.
    #[cfg(feature = "tracing")]
    span: Option<Box<Span>>,
}

impl TaskSpan {
    /// Opens the span of a task that begins.
    #[inline]
    pub(crate) fn open(
        label: impl FnOnce() -> Option<Label>,
        added_in: Option<AddedIn>,
        runner: Option<&Runner>,
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
            let added_in = added_in.map(|added_in| added_in.span);
            let parent = match relation {
                SpanRelation::Child => added_in.as_ref().and_then(Span::id),
                SpanRelation::FollowsFrom | SpanRelation::None => None,
            };
            let span = tracing::info_span!(
                target: "tower_background_tasks",
                parent: parent,
                "background_task",
                task.id = %label.id,
                task.name = %label.name(),
                task.kind = label.kind().as_str(),
                task.location = %label.location,
            );
            if let (SpanRelation::FollowsFrom, Some(cause)) = (relation, &added_in) {
                span.follows_from(cause);
            }
            Self {
                span: (!span.is_disabled()).then(|| Box::new(span)),
            }
        }
        #[cfg(not(feature = "tracing"))]
        {
            let _ = (label, added_in, runner);
            Self::default()
        }
    }

    #[inline]
    pub(crate) fn in_scope<R>(&self, f: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        if let Some(span) = &self.span {
            return span.in_scope(f);
        }
        f()
    }
}
