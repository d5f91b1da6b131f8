//! [`Stats`] and the counters behind it: the books of the promise "nothing disappears".
//!
//! Each count only grows, and each event is counted before the one that follows from it: added, begun, ended. So whoever
//! reads them in the opposite order never sees an end without its beginning, and two sums that are equal in that order were
//! equal at one moment in between. So it is with a sum over the shards: it lies between what it was when the first of them was read
//! and what it was when the last was.

use std::array;

use crate::{
    task::{end::TaskEnd, id::TaskId},
    util::sharded::Sharded,
    util::sync::{AtomicU64, Ordering},
};

/// What has become of a runner's tasks so far. Counts are tasks, from the runner's construction on.
///
/// When nothing moves, `added` is the sum of all the others. While tasks run, the counts are read one after the other, so
/// that sum may be off by those that are just changing.
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
    /// Waiting: for their response to end, or for their turn.
    pub pending: u64,
    /// Running now.
    pub running: u64,
}

/// How many kinds of [`TaskEnd`] there are.
const ENDS: usize = if cfg!(feature = "jobs") { 8 } else { 7 };

/// Each thread counts in its own shard, but for what numbers the tasks.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    added: Added,
    shards: Sharded<CountersHere>,
}

/// On cache lines of its own: of the counts, the one that all threads share.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Added(AtomicU64);

/// The counts of this thread and those that share its shard.
#[derive(Debug, Default)]
pub(crate) struct CountersHere {
    ended: [AtomicU64; ENDS],
    begun: AtomicU64,
    batches_ended: AtomicU64,
    batches_begun: AtomicU64,
}

impl Counters {
    /// The count of what was added also numbers the tasks, so that their ids cost nothing of their own.
    #[inline]
    pub(crate) fn task_added(&self) -> TaskId {
        TaskId::new(1 + self.added.0.fetch_add(1, Ordering::SeqCst))
    }

    #[inline]
    pub(crate) fn here(&self) -> &CountersHere {
        self.shards.this()
    }

    /// True when there was a moment during this call at which no batch was under way.
    pub(crate) fn is_quiet(&self) -> bool {
        let ended = self.sum(|shard| &shard.batches_ended);
        ended == self.sum(|shard| &shard.batches_begun)
    }

    /// True when there was a moment during this call at which every task that was added had ended.
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
            pending: added.saturating_sub(begun),
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
    pub(crate) fn task_ended(&self, end: &TaskEnd) {
        count(&self.ended[index(end)]);
    }

    #[inline]
    pub(crate) fn batch_begun(&self) {
        count(&self.batches_begun);
    }

    #[inline]
    pub(crate) fn batch_ended(&self) {
        count(&self.batches_ended);
    }
}

#[inline]
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

fn index(end: &TaskEnd) -> usize {
    match end {
        TaskEnd::Completed => 0,
        TaskEnd::Failed(_) => 1,
        TaskEnd::Panicked(_) => 2,
        TaskEnd::TimedOut => 3,
        TaskEnd::Skipped(_) => 4,
        TaskEnd::Rejected => 5,
        TaskEnd::Aborted => 6,
        #[cfg(feature = "jobs")]
        TaskEnd::Spilled => 7,
    }
}
