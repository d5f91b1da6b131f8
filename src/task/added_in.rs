//! [`AddedIn`]: the span that was current when a task was added.

#[cfg(feature = "tracing")]
use tracing::{Span, level_filters::LevelFilter};

#[cfg(feature = "tracing")]
use crate::util::contain::{contain, contain_drop};

/// A task keeps this until it begins. The span stays open until then.
pub(crate) struct AddedIn {
    #[cfg(feature = "tracing")]
    span: Option<Span>,
}

impl AddedIn {
    /// Returns `None` if there is no current span, or if no subscriber wants spans of level
    /// `INFO`. In the second case this costs one load.
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

/// Dropping the span may call the subscriber, which is user code.
impl Drop for AddedIn {
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        let _ = contain_drop(self.span.take());
    }
}
