//! [`AddedIn`]: the span that was current when a task was added.

#[cfg(feature = "tracing")]
use tracing::{Span, level_filters::LevelFilter};

#[cfg(feature = "tracing")]
use crate::util::contain::{contain, contain_drop};

/// It is kept until the task begins, and the span stays open for as long.
pub(crate) struct AddedIn {
    #[cfg(feature = "tracing")]
    span: Option<Span>,
}

impl AddedIn {
    /// `None` where there is no span, or no task has a span that could relate to it: without a subscriber that wants
    /// spans of level `INFO` it is one load to know.
    #[inline]
    pub(crate) fn current() -> Option<Self> {
        #[cfg(feature = "tracing")]
        {
            if LevelFilter::current() < LevelFilter::INFO {
                return None;
            }
            let span = contain(Span::current).ok()?;
            (!span.is_none()).then_some(Self { span: Some(span) })
        }
        #[cfg(not(feature = "tracing"))]
        None
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }
}

/// A subscriber is code of the user's: when it closes a span, too.
impl Drop for AddedIn {
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        let _ = contain_drop(self.span.take());
    }
}
