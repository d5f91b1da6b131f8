//! [`run`]: the fast path, for tasks that nothing is set for. Most are.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{task::coop, time::Instant};

use crate::{
    Task, TaskEnd,
    executor::execution::context_of,
    executor::slice::Slice,
    queue::current::Key,
    queue::{Queue, Turn},
    shared::stats::CountersHere,
    util::contain::contain,
};

/// Where the fast path ends.
pub(crate) enum Left {
    /// No task is left, and the queue is idle.
    Nothing,
    /// It is the turn of a task for the general path, which has not begun.
    Waiting(Turn),
    /// The task has begun, and is pending.
    Pending(Turn),
    /// The task has ended otherwise than completed, which is not reported yet.
    Ended(Turn, TaskEnd),
    /// Others are to run first, and the next task is still in the queue.
    Paused,
}

/// So many tasks count as one step in Tokio's [`coop`], after 128 of which others are to run: they are short, if they come so far in
/// one poll, and asking takes a tenth of their time.
const TASKS_A_STEP: u32 = 4;

/// Runs tasks for which nothing is set, in a runner for which nothing is set, while each completes at its first poll. `first` is
/// a task whose turn has come already.
///
/// The general path looks at each setting of each task, and locks the queue two or three times for it. This locks it once, and takes
/// half the time.
#[inline]
pub(crate) fn run(
    queue: &Arc<Queue>,
    counters: &CountersHere,
    first: Option<Turn>,
    cx: &mut Context<'_>,
    now: Instant,
) -> Left {
    let (mut first, mut now) = (first, now);
    if let Some(turn) = first.take_if(|turn| !queue.begin(turn.key, now)) {
        return Left::Ended(turn, TaskEnd::Aborted);
    }
    let (mut completed, mut run, mut slice) = (None, 0_u32, Slice::since(now));
    loop {
        let Turn { task, key } = match first.take() {
            Some(turn) => turn,
            None => match queue.advance_plain(completed, now, counters) {
                None => return Left::Nothing,
                Some((turn, true)) => turn,
                Some((turn, false)) => return Left::Waiting(turn),
            },
        };
        match poll_and_drop(queue, task, key, cx) {
            Polled::Completed => {}
            Polled::Pending(task) => return Left::Pending(Turn { task, key }),
            Polled::Ended(task, end) => return Left::Ended(Turn { task, key }, end),
        }
        completed = Some(key);
        run += 1;
        if run % TASKS_A_STEP != 0 {
            continue;
        }
        if let Poll::Ready(later) = poll_others(&mut slice, cx) {
            now = later.unwrap_or(now);
        } else if queue.pause_plain(key) {
            return Left::Paused;
        } else {
            return Left::Nothing;
        }
    }
}

/// Pending where others are to run first. Ready with the time, where it has looked at the clock.
fn poll_others(slice: &mut Slice, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
    ready!(coop::poll_proceed(cx)).made_progress();
    slice.poll_others(TASKS_A_STEP, cx)
}

enum Polled {
    /// And dropped: nothing of the task is alive when the next one begins.
    Completed,
    Pending(Task),
    Ended(Task, TaskEnd),
}

#[inline]
fn poll_and_drop(queue: &Arc<Queue>, task: Task, key: Key, cx: &mut Context<'_>) -> Polled {
    let mut slot = Some(task);
    let polled = contain(|| {
        let polled = match &mut slot {
            Some(task) => task.poll(cx, &|| context_of(queue, key)),
            None => Poll::Ready(Ok(())),
        };
        if let Poll::Ready(Ok(())) = polled {
            slot = None;
        }
        polled
    });
    // A stand-in where the task's destructor has panicked.
    let task = || slot.unwrap_or_else(|| Task::new(async {}));
    match polled {
        Ok(Poll::Ready(Ok(()))) => Polled::Completed,
        Ok(Poll::Pending) => Polled::Pending(task()),
        Ok(Poll::Ready(Err(error))) => Polled::Ended(task(), TaskEnd::Failed(error)),
        Err(message) => Polled::Ended(task(), TaskEnd::Panicked(message)),
    }
}
