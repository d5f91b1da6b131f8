//! [`Stats`] and the counters behind it. Keeps the promise "nothing disappears".
//!
//! Each count only grows. A task's events are counted in this order: added, awaiting, awaited,
//! begun, ended. A thread that reads the counts in the opposite order never sees an end without
//! its beginning. If two sums read in that order are equal, they were equal at one moment in
//! between. A sum over the shards has this property too: it lies between the count's value at the
//! first read and its value at the last.

use std::{array, fmt};

use crate::{
    task::{end::TaskEnd, id::TaskId},
    util::sharded::Sharded,
    util::sync::{AtomicU64, Ordering},
};

/// What has become of a runner's tasks since the runner was made.
///
/// When no task changes its state, `added` is the sum of all other counts. While tasks run, the
/// counts are read one after another. The sum may then be off by the tasks that are changing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_background_tasks::Runner;
///
/// let runner = Runner::new();
/// runner.add_task(async {});
/// runner.add_task(async { panic!("on purpose") });
/// runner.idle().await;
/// let stats = runner.stats();
/// assert_eq!((stats.added, stats.completed, stats.panicked), (2, 1, 1));
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Added to a queue of this runner.
    pub added: u64,
    /// Ended [`Completed`](TaskEnd::Completed).
    pub completed: u64,
    /// Ended [`Failed`](TaskEnd::Failed).
    pub failed: u64,
    /// Ended [`Panicked`](TaskEnd::Panicked).
    pub panicked: u64,
    /// Ended [`TimedOut`](TaskEnd::TimedOut).
    pub timed_out: u64,
    /// Ended [`Skipped`](TaskEnd::Skipped).
    pub skipped: u64,
    /// Ended [`Rejected`](TaskEnd::Rejected).
    pub rejected: u64,
    /// Ended [`Aborted`](TaskEnd::Aborted).
    pub aborted: u64,
    /// Ended [`Spilled`](TaskEnd::Spilled).
    #[cfg(feature = "jobs")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
    pub spilled: u64,
    /// Waiting for their response to end, or for the release of a
    /// [`hold`](crate::BackgroundTasks::hold).
    pub awaiting_response: u64,
    /// Waiting to begin: for earlier tasks of the request, for a worker, or for a place under the
    /// limits.
    pub pending: u64,
    /// Running now.
    pub running: u64,
}

/// One line without the zeros: `3 added: 2 completed, 1 running`.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.completed, "completed"),
            (self.failed, "failed"),
            (self.panicked, "panicked"),
            (self.timed_out, "timed out"),
            (self.skipped, "skipped"),
            (self.rejected, "rejected"),
            (self.aborted, "aborted"),
            #[cfg(feature = "jobs")]
            (self.spilled, "handed to the store"),
            (self.awaiting_response, "awaiting their response"),
            (self.pending, "waiting"),
            (self.running, "running"),
        ];
        write!(f, "{} added", self.added)?;
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        for (number, (count, what)) in counts.enumerate() {
            let before = if number == 0 { ": " } else { ", " };
            write!(f, "{before}{count} {what}")?;
        }
        Ok(())
    }
}

/// How many kinds of [`TaskEnd`] there are.
const ENDS: usize = TaskEnd::WORDS.len();

/// Each thread counts in its own shard, except for `added`, which numbers the tasks.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    added: Added,
    shards: Sharded<CountersHere>,
}

/// Alone on its cache lines, as it is the one count that all threads share.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Added(AtomicU64);

/// The counts of the threads that share a shard.
#[derive(Debug, Default)]
pub(crate) struct CountersHere {
    ended: [AtomicU64; ENDS],
    begun: AtomicU64,
    /// How many of the `awaiting` tasks no longer await their response.
    awaited: AtomicU64,
    awaiting: AtomicU64,
    batches_ended: AtomicU64,
    batches_begun: AtomicU64,
    requests_ended: AtomicU64,
    requests_opened: AtomicU64,
}

impl Counters {
    /// Counts a task. `added` also numbers the tasks, so an id costs nothing more.
    #[inline]
    pub(crate) fn task_added(&self) -> TaskId {
        TaskId::new(1 + self.added.0.fetch_add(1, Ordering::SeqCst))
    }

    #[inline]
    pub(crate) fn here(&self) -> &CountersHere {
        self.shards.this()
    }

    /// True if no batch was unfinished at some moment during this call.
    pub(crate) fn is_quiet(&self) -> bool {
        // Ends are read before beginnings: see the top of this file.
        let ended = self.sum(|shard| &shard.batches_ended);
        ended == self.sum(|shard| &shard.batches_begun)
    }

    /// True if no followed request was open at some moment during this call.
    pub(crate) fn has_no_request(&self) -> bool {
        let ended = self.sum(|shard| &shard.requests_ended);
        ended == self.sum(|shard| &shard.requests_opened)
    }

    /// True if every added task had begun, or ended without beginning, at some moment during this
    /// call.
    pub(crate) fn is_begun(&self) -> bool {
        let begun = self.sum(|shard| &shard.begun);
        begun == self.added.0.load(Ordering::SeqCst)
    }

    /// True if every added task had ended at some moment during this call.
    pub(crate) fn is_balanced(&self) -> bool {
        let ended: u64 = self.ends().iter().sum();
        ended == self.added.0.load(Ordering::SeqCst)
    }

    fn ends(&self) -> [u64; ENDS] {
        array::from_fn(|end| self.sum(|shard| &shard.ended[end]))
    }

    fn sum(&self, count: impl Fn(&CountersHere) -> &AtomicU64) -> u64 {
        let counts = self.shards.iter().map(count);
        counts.map(|count| count.load(Ordering::SeqCst)).sum()
    }

    pub(crate) fn stats(&self) -> Stats {
        let ends = self.ends();
        let ended: u64 = ends.iter().sum();
        let begun = self.sum(|shard| &shard.begun);
        let awaited = self.sum(|shard| &shard.awaited);
        let awaiting_response = self.sum(|shard| &shard.awaiting).saturating_sub(awaited);
        let added = self.added.0.load(Ordering::SeqCst);
        Stats {
            added,
            completed: ends[0],
            failed: ends[1],
            panicked: ends[2],
            timed_out: ends[3],
            skipped: ends[4],
            rejected: ends[5],
            aborted: ends[6],
            #[cfg(feature = "jobs")]
            spilled: ends[7],
            awaiting_response,
            pending: added.saturating_sub(begun + awaiting_response),
            running: begun.saturating_sub(ended),
        }
    }
}

impl CountersHere {
    #[inline]
    pub(crate) fn task_begun(&self) {
        count(&self.begun);
    }

    #[inline]
    pub(crate) fn tasks_await(&self) {
        count(&self.awaiting);
    }

    #[inline]
    pub(crate) fn tasks_awaited(&self, tasks: usize) {
        self.awaited.fetch_add(tasks as u64, Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn task_ended(&self, end: &TaskEnd) {
        count(&self.ended[end.index()]);
    }

    #[inline]
    pub(crate) fn batch_begun(&self) {
        count(&self.batches_begun);
    }

    #[inline]
    pub(crate) fn batch_ended(&self) {
        count(&self.batches_ended);
    }

    pub(crate) fn request_opened(&self) {
        count(&self.requests_opened);
    }

    pub(crate) fn request_ended(&self) {
        count(&self.requests_ended);
    }
}

#[inline]
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}
