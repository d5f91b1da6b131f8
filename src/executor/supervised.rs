//! A supervised blocking task: the batch awaits its thread, at most until the task's timeout.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Weak},
    task::{Poll, ready},
    time::Duration,
};

use tokio::{sync::oneshot, task::spawn_blocking};

use super::{
    limits::Permit,
    running_task::{RunningTask, no_timer},
};
use crate::{
    queue::Queue,
    task::{end::TaskEnd, id::TaskId},
    util::{
        contain::{contain, woken_contained},
        timer::Timer,
    },
};

/// Runs a blocking task on a thread of its own. Once it has begun, it keeps its batch's permit
/// until it returns. If the timeout expires first, the queue lists the task as overdue until then.
/// While the task waits for a thread, only the batch holds the permit, so a cancel frees it at
/// once.
pub(super) async fn supervise(
    queue: Arc<Queue>,
    id: TaskId,
    permit: Option<Weak<Permit>>,
    limit: Option<Duration>,
) -> TaskEnd {
    // Without a timer the task must not run, as nothing could enforce its timeout.
    if let Some(Err(why)) = limit.map(Timer::new) {
        return no_timer(&why);
    }
    let (started, has_started) = oneshot::channel();
    let thread = move || {
        let _ = started.send(());
        run(&queue, id, permit)
    };
    let Ok(returned) = contain(|| spawn_blocking(thread)) else {
        return TaskEnd::Aborted;
    };
    if woken_contained(has_started).await.is_err() {
        return TaskEnd::Aborted; // the pool is shutting down
    }
    // The timeout starts when the thread starts. The wait for a thread does not count.
    let mut timer = match limit.map(Timer::new).transpose() {
        Ok(timer) => timer,
        Err(why) => return no_timer(&why),
    };
    let mut returned = pin!(returned);
    poll_fn(|cx| {
        if let Poll::Ready(end) = returned.as_mut().poll(cx) {
            return Poll::Ready(end.unwrap_or(TaskEnd::Aborted));
        }
        let Some(timer) = &mut timer else {
            return Poll::Pending;
        };
        Poll::Ready(match ready!(timer.poll(cx)) {
            Ok(()) => TaskEnd::TimedOut,
            Err(why) => no_timer(&why),
        })
    })
    .await
}

fn run(queue: &Arc<Queue>, id: TaskId, permit: Option<Weak<Permit>>) -> TaskEnd {
    // The batch holds the permit until the end is counted, so a task that begins can upgrade it.
    let _permit = permit.and_then(|permit| permit.upgrade());
    let Some(task) = queue.begin_on_thread(id) else {
        return TaskEnd::Aborted; // its end was claimed while it waited for a thread
    };
    let mut running = RunningTask::new(queue, task);
    let end = running.run(queue);
    let end = running.finish(queue, end);
    queue.returned(id);
    end
}
