//! [`Runner::shutdown`] and its [`ShutdownReport`].

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    task::Poll,
    thread,
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time::Instant};

use crate::{
    Runner, TaskInfo,
    executor::admission::Admission,
    queue::{Left, Queue},
    runner::in_order,
    util::contain::{contain, woken_contained},
};

/// What [`Runner::shutdown`] had to leave.
///
/// Its [`Display`](fmt::Display) has a line for each unfinished task.
#[derive(Clone, Debug, Default)]
#[must_use = "it names the tasks that were not finished"]
pub struct ShutdownReport {
    unfinished: Vec<TaskInfo>,
    overdue: Vec<TaskInfo>,
    #[cfg(feature = "jobs")]
    pub(crate) spilled: crate::jobs::Spilled,
}

impl ShutdownReport {
    /// True when every task had ended in time, or is in the store that jobs spill to.
    pub fn is_clean(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// The tasks that were aborted, those added first in front.
    pub fn unfinished(&self) -> &[TaskInfo] {
        &self.unfinished
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
        self.spilled.fmt(f)?;
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
        let tasks = counted(self.unfinished.len(), "background task");
        write!(f, "{tasks} aborted:")?;
        for task in &self.unfinished {
            write!(f, "\n  {task}")?;
        }
        Ok(())
    }
}

/// "1 task", "2 tasks".
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
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
        self.closing().cancel(); // whoever waits for it does so under a contained waker
        let mut grace = pin!(elapse(grace));
        loop {
            let mut drained = pin!(self.drained());
            let in_time = poll_fn(|cx| match drained.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => grace.as_mut().poll(cx).map(|()| false),
            });
            let in_time = in_time.await;
            self.registry().close();
            // Closed or not: what came in between is waited for.
            if !in_time || self.is_drained() {
                break;
            }
        }
        #[cfg(feature = "jobs")]
        self.spill_jobs().await;
        let unfinished = self.abort_all();
        self.lanes().close();
        ShutdownReport {
            unfinished,
            overdue: in_order(self.overdue().infos(Instant::now())),
            #[cfg(feature = "jobs")]
            spilled: self.job_settings().spilled(),
        }
    }

    /// Aborts what is left, and gives a row for each task that any call of this has aborted.
    pub(crate) fn abort_all(&self) -> Vec<TaskInfo> {
        self.abort_but(|_, _| {});
        self.unfinished()
    }

    /// Aborts what is left, except for what `spare` takes out of it. That is called with a lock held, and calls nobody else's code.
    pub(crate) fn abort_but(&self, mut spare: impl FnMut(&Arc<Queue>, &mut Left)) {
        // Taken out and named with the lock held, and reported afterwards: another call of this finds either the tasks or their names.
        let mut unfinished = self.lock_unfinished();
        let (queues, now) = (self.registry().queues(), Instant::now());
        let mut left: Vec<_> = queues.iter().map(|queue| queue.take_all()).collect();
        for (queue, left) in queues.iter().zip(&mut left) {
            spare(queue, left);
        }
        for (queue, left) in queues.iter().zip(&left) {
            unfinished.extend(queue.rows(left, now));
        }
        drop(unfinished);
        for (queue, left) in queues.iter().zip(left) {
            queue.abort(left);
        }
        // Only now, so that no batch comes to wait for a place behind this; what it waited with is aborted.
        drop(self.admission().map(Admission::close));
        // Their tasks are aborted: there is nothing to send for a thread for.
        drop(self.crew().take_all());
    }
}

/// Waits, on the runtime's timer where there is one, or else on a thread.
pub(crate) async fn elapse(time: Duration) {
    let timer = Handle::try_current()
        .is_ok()
        .then(|| contain(|| Box::pin(tokio::time::sleep(time))));
    match timer {
        Some(Ok(sleep)) => woken_contained(sleep).await,
        _ => elapse_on_a_thread(time).await,
    }
}

async fn elapse_on_a_thread(time: Duration) {
    let (is_over, over) = oneshot::channel::<()>();
    // Dropped with this future, which ends the thread.
    let (_waiting, waits) = channel::<()>();
    let spawned = thread::Builder::new().spawn(move || {
        if waits.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            let _ = is_over.send(());
        }
    });
    if spawned.is_ok() {
        let _ = over.await;
    }
}
