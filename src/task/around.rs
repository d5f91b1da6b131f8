//! [`Next`] and [`Ran`], for [`RunnerBuilder::around`](crate::RunnerBuilder::around), which
//! surrounds tasks while they run.

use std::fmt;

use super::context::TaskContext;

/// Called around each step of a task.
pub(crate) type Around = Box<dyn Fn(&TaskContext, Next<'_>) -> Ran + Send + Sync>;

/// One step of a task, for [`RunnerBuilder::around`](crate::RunnerBuilder::around): a poll of an
/// async task, the call of a blocking one, or the destructor of either.
#[must_use = "the task does not go on unless this is run"]
pub struct Next<'a> {
    step: &'a mut dyn FnMut(),
}

/// Proves that the step was run. [`Next::run`] returns it.
#[derive(Debug)]
#[must_use = "what surrounds a task returns this"]
pub struct Ran(());

impl<'a> Next<'a> {
    pub(crate) fn new(step: &'a mut dyn FnMut()) -> Self {
        Self { step }
    }

    /// Runs the step.
    ///
    /// # Panics
    ///
    /// This panics if the task panics. The panic passes through the surrounding closure and ends
    /// the task [`Panicked`](crate::TaskEnd::Panicked).
    pub fn run(self) -> Ran {
        (self.step)();
        Ran(())
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

/// Calls `step` within `around`. Returns `None` if `around` did not run it.
pub(crate) fn surrounded<R>(
    around: &Around,
    context: &TaskContext,
    step: impl FnOnce() -> R,
) -> Option<R> {
    let (mut step, mut returned) = (Some(step), None);
    let mut once = || returned = step.take().map(|step| step());
    let Ran(()) = around(context, Next::new(&mut once));
    returned
}

/// Combines two: `outer` runs around `inner`.
pub(crate) fn nested(outer: Around, inner: Around) -> Around {
    Box::new(move |context, next| {
        let mut next = Some(next);
        let mut once = || {
            if let Some(next) = next.take() {
                let Ran(()) = inner(context, next);
            }
        };
        outer(context, Next::new(&mut once))
    })
}
