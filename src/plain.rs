//! [`run`]: the fast path, for tasks that nothing is set for. Most are.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{task::coop, time::Instant};

use crate::{
    Task, TaskEnd,
    contain::contain,
    execution::context_of,
    queue::{Queue, Turn},
};

/// Where the fast path ends.
pub(crate) enum Left {
    /// No task is left, and the queue is idle.
    Nothing,
    /// It is the turn of a task for the general path, or of one that has to let others run first. It has not begun.
    Waiting(Turn),
    /// The task is pending.
    Pending(Turn),
    /// The task has ended otherwise than completed, which is not reported yet.
    Ended(Turn, TaskEnd),
}

/// Runs tasks for which nothing is set, in a runner for which nothing is set, while each completes at its first poll.
///
/// The general path looks at each setting of each task, and locks the queue three times for it. This locks it once, and takes
/// half the time.
#[inline]
pub(crate) fn run(queue: &Arc<Queue>, turn: Turn, cx: &mut Context<'_>, now: Instant) -> Left {
    let Turn { task, mut key } = turn;
    if !queue.begin(key, now) {
        return Left::Ended(Turn { task, key }, TaskEnd::Aborted);
    }
    let mut task = Some(task);
    loop {
        let polled = contain(|| {
            let polled = match &mut task {
                Some(task) => task.poll(cx, &|| context_of(queue, key)),
                None => Poll::Ready(Ok(())),
            };
            if let Poll::Ready(Ok(())) = polled {
                task = None; // nothing of it is alive when the next task begins
            }
            polled
        });
        // A stand-in for a task whose destructor panicked.
        let turn = |task: Option<Task>| Turn {
            task: task.unwrap_or_else(|| Task::new(async {})),
            key,
        };
        match polled {
            Ok(Poll::Ready(Ok(()))) => {}
            Ok(Poll::Ready(Err(error))) => {
                return Left::Ended(turn(task), TaskEnd::Failed(error));
            }
            Ok(Poll::Pending) => return Left::Pending(turn(task)),
            Err(message) => return Left::Ended(turn(task), TaskEnd::Panicked(message)),
        }
        let progress = coop::poll_proceed(cx);
        match queue.completed(key, progress.is_ready().then_some(now)) {
            None => return Left::Nothing,
            Some((next, false)) => return Left::Waiting(next),
            Some((next, true)) => (task, key) = (Some(next.task), next.key),
        }
        if let Poll::Ready(progress) = progress {
            progress.made_progress();
        }
    }
}
