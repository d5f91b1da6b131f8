//! [`Runner::shutdown`] and its [`ShutdownReport`].

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use super::Runner;
use crate::{
    observe::info::{TaskInfo, TaskState},
    shared::unfinished::Unfinished,
    util::{counted::counted, sync::lock, timer::elapse},
};

/// What [`Runner::shutdown`] had to leave.
///
/// Its [`Display`](fmt::Display) has a line for each unfinished task.
#[derive(Clone, Debug, Default)]
#[must_use = "it names the tasks that were not finished"]
pub struct ShutdownReport {
    pub(crate) unfinished: Unfinished,
    overdue: Vec<TaskInfo>,
}

/// Called with a runner that shuts down, when its grace is over: for a room above, found in the settings' extensions.
#[derive(Clone, Copy)]
pub(crate) struct OnShutdown(pub(crate) fn(Runner) -> Pin<Box<dyn Future<Output = ()> + Send>>);

impl ShutdownReport {
    /// True when every task had ended in time, or is in the store that jobs spill to.
    pub fn is_clean(&self) -> bool {
        self.unfinished.aborted.is_empty()
    }

    /// The tasks that were aborted, those added first in front.
    pub fn unfinished(&self) -> &[TaskInfo] {
        &self.unfinished.aborted
    }

    /// The blocking tasks that had timed out, and whose threads went on when the report was made. They have been reported, and hold up
    /// the end of the runtime all the same.
    pub fn overdue(&self) -> &[TaskInfo] {
        &self.overdue
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "jobs")]
        self.unfinished.fmt_spilled(f)?;
        for task in &self.overdue {
            writeln!(f, "{task}")?;
        }
        if self.is_clean() {
            let others = if self.overdue.is_empty() {
                ""
            } else {
                "other "
            };
            return write!(f, "all {others}background tasks ended");
        }
        let tasks = counted(self.unfinished().len(), "background task");
        write!(f, "{tasks} aborted:")?;
        for task in self.unfinished() {
            write!(f, "\n  {task}")?;
        }
        Ok(())
    }
}

impl Runner {
    /// Waits until every task has ended, and after `grace` aborts and names what is left. Then the runner takes no more.
    ///
    /// For a server: first its own graceful shutdown, then this, so that no request comes in whose tasks would be refused.
    ///
    /// 1. Running tasks are told ([`TaskContext::shutting_down`](crate::TaskContext::shutting_down)).
    /// 2. What requests in flight and running tasks add is still taken. A task whose response has not ended counts, and is
    ///    waited for; a request in flight that has added none yet does not.
    /// 3. When all is done, or after `grace`, the runner closes: what is added from now on is refused.
    /// 4. What is left ends [`Aborted`](crate::TaskEnd::Aborted), and is in the report. An async task is dropped at its next
    ///    await point. A blocking task that runs cannot be stopped: it is reported, and its thread goes on.
    ///
    /// With the feature `jobs` and a `spill_store`, jobs that are left are stopped in the same way, and handed to that store, for
    /// which this takes up to `spill_timeout` more: `grace` and that, 10 seconds by default, must fit into the time that whoever
    /// stops the process gives it. See `RunnerBuilder::spill_store`.
    ///
    /// # More than one call
    ///
    /// Calls may overlap: each waits for its own `grace`, the first that is over aborts what is left, and all then return the
    /// same report. A later call returns it again, at once. A task that calls this waits for itself as well: it is aborted,
    /// and named, after `grace`; jobs are handed over all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the waiting. Tasks stay told. Before the end of `grace` nothing is aborted, and unless all was done by then
    /// the runner goes on; call it again to finish. After it, while jobs go to a `spill_store`, the rest has been aborted, and the jobs
    /// go on to the store, on the runner's runtime, for as long as that is driven: call it again to wait for them, and for the report.
    /// Where the runner has no runtime, they are aborted with it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use tower_background_tasks::{Runner, Task};
    ///
    /// let runner = Runner::new();
    /// runner.add_task(async {});
    /// runner.add_task(Task::new(std::future::pending::<()>()).named("stuck"));
    /// let report = runner.shutdown(Duration::from_millis(10)).await;
    /// assert!(!report.is_clean());
    /// assert_eq!(report.unfinished()[0].name(), "stuck");
    /// # }
    /// ```
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let shared = self.shared();
        shared.closing.cancel(); // whoever waits for it does so under a contained waker
        let mut grace = pin!(elapse(grace));
        loop {
            let mut drained = pin!(shared.drained());
            let in_time = poll_fn(|cx| match drained.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => grace.as_mut().poll(cx).map(|()| false),
            });
            let in_time = in_time.await;
            self.owner.queues.close();
            // Closed or not: what came in between is waited for.
            if !in_time || shared.is_drained() {
                break;
            }
        }
        if let Some(OnShutdown(hook)) = shared.settings.extensions.get() {
            hook(self.clone()).await;
        }
        self.owner.abort_all(|_| false);
        self.report()
    }

    /// What all shutdowns have left.
    fn report(&self) -> ShutdownReport {
        let mut overdue = self.tasks();
        overdue.retain(|task| task.state() == TaskState::Overdue);
        let unfinished = lock(&self.shared().unfinished).clone();
        ShutdownReport {
            unfinished: unfinished.in_order(),
            overdue,
        }
    }
}
