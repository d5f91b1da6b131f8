//! [`SlowPoll`]: names an async task that holds its worker. Blocking code in an async task is the
//! commonest mistake.

use std::time::Duration;

#[cfg(feature = "tracing")]
use tokio::time::Instant;

use super::span::TaskSpan;
use crate::task::label::Label;
#[cfg(feature = "tracing")]
use crate::util::contain::contain;

/// One poll that is being timed.
pub(crate) struct SlowPoll {
    #[cfg(feature = "tracing")]
    timed: Option<(Duration, Instant, Label)>,
}

impl SlowPoll {
    /// The label is taken before the poll: a task that is cancelled during a slow poll must still
    /// be named.
    pub(crate) fn watch(threshold: Duration, label: Option<Label>) -> Self {
        #[cfg(feature = "tracing")]
        {
            let timed = label.map(|label| (threshold, Instant::now(), label));
            Self { timed }
        }
        #[cfg(not(feature = "tracing"))]
        {
            let _ = (threshold, label);
            Self {}
        }
    }

    /// Warns if the poll, which has returned, took too long.
    pub(crate) fn check(self, span: &TaskSpan) {
        #[cfg(feature = "tracing")]
        if let Some((threshold, begun, label)) = self.timed {
            let held = begun.elapsed();
            if held >= threshold {
                let has_span = !span.is_none();
                let _ = contain(|| span.in_scope(|| warn(&label, held, has_span)));
            }
        }
        #[cfg(not(feature = "tracing"))]
        let _ = span;
    }
}

#[cfg(feature = "tracing")]
fn warn(label: &Label, held: Duration, has_span: bool) {
    let unless_in_span = (!has_span).then_some(label);
    tracing::warn!(
        target: "tower_background_tasks",
        {
            task.name = &*label.name(), // as a `str`: a subscriber escapes it
            task.id = unless_in_span.map(|label| tracing::field::display(label.id)),
            task.location = unless_in_span.map(|label| tracing::field::display(label.location)),
            task.held_seconds = held.as_secs_f64(),
        },
        "background task held its worker: blocking code belongs into `add_blocking_task`"
    );
}
