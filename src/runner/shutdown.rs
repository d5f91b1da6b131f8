//! [`Runner::shutdown`] and its [`ShutdownReport`].

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    process::ExitCode,
    task::Poll,
    time::Duration,
};

use super::Runner;
use crate::{
    observe::{
        info::{TaskInfo, TaskState},
        open_connection::OpenConnection,
        open_request::OpenRequest,
    },
    shared::unfinished::Unfinished,
    util::{counted::counted, sync::lock, timer::elapse},
};

/// What [`Runner::shutdown`] could not finish.
///
/// Its [`Display`](fmt::Display) has a line for each unfinished task.
#[derive(Clone, Debug, Default)]
#[must_use = "it names the tasks that were not finished"]
pub struct ShutdownReport {
    pub(crate) unfinished: Unfinished,
    overdue: Vec<TaskInfo>,
}

/// Called with a runner that shuts down, after its grace period. A room above puts it into the
/// settings' extensions.
#[derive(Clone, Copy)]
pub(crate) struct OnShutdown(pub(crate) fn(Runner) -> Pin<Box<dyn Future<Output = ()> + Send>>);

impl ShutdownReport {
    /// Returns true if every task ended in time or was handed to the spill store, and no task came
    /// too late. Also, no connection may have been kept open, and no request cut off.
    /// [Overdue](Self::overdue) tasks and the [server](Self::server_stopped) do not count.
    pub fn is_clean(&self) -> bool {
        self.unfinished().is_empty()
            && self.rejected().is_empty()
            && self.unfinished.connections.is_empty()
            && self.requests().is_empty()
    }

    /// Returns success (0) if this is [clean](Self::is_clean), or else failure (1). Use it if
    /// `main` must return instead of calling [`exit`](Self::exit).
    pub fn exit_code(&self) -> ExitCode {
        if self.is_clean() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Ends the process with status 0 if this is [clean](Self::is_clean), or else with 1. Call it
    /// in the last line of `main`.
    ///
    /// A `main` that returns waits for blocking tasks that still run, because
    /// [`Runtime`](tokio::runtime::Runtime#shutdown)'s drop cannot stop their threads. This waits
    /// for nothing. It also runs no destructors. First drop the values that write when they are
    /// dropped, such as the guard of `tracing_appender`.
    #[allow(clippy::exit, reason = "as its name says")]
    pub fn exit(self) -> ! {
        std::process::exit(i32::from(!self.is_clean()))
    }

    /// Returns the tasks that ended [`Rejected`](crate::TaskEnd::Rejected) because they were added
    /// after the runner closed: the first 1,000 of them until this report. Use
    /// [`keep_open`](crate::BackgroundTasks::keep_open) for what adds tasks so late, such as a
    /// WebSocket handler.
    pub fn rejected(&self) -> &[TaskInfo] {
        &self.unfinished.rejected
    }

    /// Returns the connections that were still [kept open](crate::BackgroundTasks::keep_open) at
    /// the end, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = &OpenConnection> {
        self.unfinished.connections.values()
    }

    /// Returns the requests that [`Runner::serve`] cut off, because their handlers had not
    /// answered or their bodies had not ended. Their tasks then ran, if there was time.
    pub fn requests(&self) -> &[OpenRequest] {
        &self.unfinished.requests
    }

    /// Returns false if [`Runner::serve`] dropped the server although every request known to the
    /// layer had ended. The server then still had requests on routes without the layer, or
    /// connections with incomplete requests.
    pub fn server_stopped(&self) -> bool {
        !self.unfinished.is_server_cut_off
    }

    /// Returns the aborted tasks, in the order added.
    pub fn unfinished(&self) -> &[TaskInfo] {
        &self.unfinished.aborted
    }

    /// Returns the blocking tasks that had timed out and whose threads still ran when the report
    /// was made. Their ends have been reported, but their threads delay the end of the runtime.
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
        if !self.server_stopped() {
            let of = "connections or requests that the layer does not know";
            writeln!(
                f,
                "the server did not stop in time, and was dropped with {of}"
            )?;
        }
        named(f, "request", "cut off", self.requests())?;
        let connections: Vec<_> = self.connections().collect();
        named(f, "connection", "kept open", &connections)?;
        named(f, "background task", "added too late", self.rejected())?;
        if self.unfinished().is_empty() {
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

/// Writes a line with the count, and a line for each row.
fn named(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    became: &str,
    rows: &[impl fmt::Display],
) -> fmt::Result {
    if !rows.is_empty() {
        writeln!(f, "{} {became}:", counted(rows.len(), what))?;
    }
    rows.iter().try_for_each(|row| writeln!(f, "  {row}"))
}

impl Runner {
    /// Waits until every task has ended, then closes the runner. After `grace` it aborts the
    /// unfinished tasks and names them in the report.
    ///
    /// First stop the server gracefully, then call this. Otherwise requests may still come in, and
    /// the runner refuses their tasks.
    ///
    /// 1. Running tasks are notified
    ///    ([`TaskContext::shutting_down`](crate::TaskContext::shutting_down)).
    /// 2. The runner still accepts tasks from open requests and running tasks. It waits for tasks
    ///    whose response has not ended, and for connections that are [kept
    ///    open](crate::BackgroundTasks::keep_open). It does not wait for an open request that has
    ///    added no task yet.
    /// 3. When nothing is left to wait for, or after `grace`, the runner closes. It refuses tasks
    ///    that are added later.
    /// 4. The unfinished tasks end [`Aborted`](crate::TaskEnd::Aborted), and the report names
    ///    them. An async task is dropped at its next await point. A blocking task that runs cannot
    ///    be stopped: the report names it, and its thread continues.
    ///
    /// With the feature `jobs` and a `spill_store`, unfinished jobs are stopped in the same way
    /// and handed to that store. This takes up to `spill_timeout` more, 3 seconds by default. The
    /// process must get enough time to stop for both `grace` and `spill_timeout`. See
    /// `RunnerBuilder::spill_store`.
    ///
    /// # More than one call
    ///
    /// Calls may overlap. Each waits for its own `grace`. The first call whose `grace` is over
    /// aborts the unfinished tasks, and all calls then return the same report. A later call
    /// returns it again, at once. A task that calls this waits for itself as well. After `grace`
    /// it is aborted and named, but jobs are still handed over.
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the waiting. Running tasks stay notified.
    ///
    /// Before the end of `grace`, dropping this aborts nothing. The runner goes on, unless every
    /// task had already ended. Call this again to finish.
    ///
    /// After `grace`, while jobs go to a `spill_store`, all other tasks have been aborted. The
    /// runner's runtime continues to hand over the jobs, for as long as it runs. Call this again
    /// to wait for them and for the report. If the runner has no runtime, dropping this aborts the
    /// jobs.
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
        shared.note_deadline(grace);
        shared.closing.cancel(); // its waiters' wakers are contained
        let mut grace = pin!(elapse(grace));
        loop {
            let mut drained = pin!(shared.drained());
            let in_time = poll_fn(|cx| match grace.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending => drained.as_mut().poll(cx).map(|()| true),
            });
            let in_time = in_time.await;
            self.owner.close();
            // A task may have been added before the close. The loop waits for it too.
            if !in_time || shared.is_drained() {
                break;
            }
        }
        if let Some(OnShutdown(hook)) = shared.settings.extensions.get() {
            hook(self.clone()).await;
        }
        self.owner.abort_all(|_| false);
        shared.note_kept_open();
        shared.flush_log();
        self.report()
    }

    /// Makes the report of what the shutdowns did not finish.
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
