//! [`SlowPoll`]: names an async task that holds its worker. Blocking code in an async task is the commonest mistake of all.

#[cfg(feature = "tracing")]
use std::time::Duration;

#[cfg(feature = "tracing")]
use tokio::time::Instant;

#[cfg(feature = "tracing")]
use crate::contain::contain;
use crate::{Runner, task::Label};

/// One poll that is being timed, if the runner is to warn of slow ones.
pub(crate) struct SlowPoll {
    #[cfg(feature = "tracing")]
    timed: Option<(Duration, Instant)>,
}

impl SlowPoll {
    #[inline]
    pub(crate) fn watch(runner: Option<&Runner>) -> Self {
        #[cfg(feature = "tracing")]
        {
            let threshold = runner.and_then(Runner::slow_poll);
            Self {
                timed: threshold.map(|threshold| (threshold, Instant::now())),
            }
        }
        #[cfg(not(feature = "tracing"))]
        {
            let _ = runner;
            Self {}
        }
    }

    /// The poll has returned: warns if it took too long.
    #[inline]
    pub(crate) fn check(self, label: impl FnOnce() -> Option<Label>) {
        #[cfg(feature = "tracing")]
        if let Some((threshold, begun)) = self.timed {
            let held = begun.elapsed();
            if held >= threshold {
                if let Some(label) = label() {
                    let _ = contain(|| warn(&label, held));
                }
            }
        }
        #[cfg(not(feature = "tracing"))]
        let _ = label;
    }
}

#[cfg(feature = "tracing")]
fn warn(label: &Label, held: Duration) {
    tracing::warn!(
        target: "tower_background_tasks",
        {
            task.id = %label.id,
            task.name = %label.name(),
            task.location = %label.location,
            ?held,
        },
        "background task held its worker: blocking code belongs into `add_blocking_task`"
    );
}
