//! [`Batch`]: a queue's turn on the runner. Keeps the promises "once", "order" and "never on the connection".
//!
//! A batch is the one right to take tasks out of its queue. It is handed from the async runtime to the blocking pool and
//! back as the tasks want it; wherever it is dropped unfinished, what is left of it ends aborted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{runtime::Handle, task::coop, time::Instant};

use crate::{
    Runner, Task,
    contain::contain,
    execution::{Execution, discard},
    queue::Queue,
};

/// How long one hop to the blocking pool serves a queue's tasks before it goes through the pool's own queue again: behind
/// others that wait for a thread, and not at all when the runtime is shutting down.
const HOLDS_THREAD: Duration = Duration::from_millis(10);

pub(crate) struct Batch {
    queue: Arc<Queue>,
    /// The task whose turn it is.
    current: Option<Execution>,
    /// The queue had no more task: its phase is running no longer.
    ended: bool,
}

impl Batch {
    /// The caller has just turned the queue's phase to running.
    pub(crate) fn new(queue: Arc<Queue>, first: Task) -> Self {
        if let Some(runner) = queue.runner() {
            runner.batch_begun();
        }
        Self {
            current: Some(Execution::new(Arc::clone(&queue), first)),
            queue,
            ended: false,
        }
    }

    /// Sets the batch going and returns at once: the caller is a connection, or a `Drop`.
    ///
    /// Where there is no runtime, or it is shutting down, its tasks end aborted.
    pub(crate) fn start(self) {
        let Some(runtime) = self.queue.runner().and_then(Runner::runtime) else {
            return;
        };
        // Tokio panics when the system has no more threads to give.
        let _ = contain(|| {
            if self.wants_blocking_thread() {
                self.start_blocking(&runtime);
            } else {
                runtime.spawn(self.drive());
            }
        });
    }

    fn drive(self) -> Drive {
        Drive {
            batch: Some(self),
            yielded: false,
        }
    }

    /// One hop to the blocking pool serves blocking tasks in a row, up to [`HOLDS_THREAD`].
    fn start_blocking(mut self, runtime: &Handle) {
        runtime.spawn_blocking(move || {
            let hopped = Instant::now();
            while self.wants_blocking_thread() && hopped.elapsed() < HOLDS_THREAD {
                if let Some(execution) = &mut self.current {
                    execution.run_here();
                }
                if !self.next() {
                    return;
                }
            }
            self.start();
        });
    }

    fn wants_blocking_thread(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(Execution::wants_blocking_thread)
    }

    /// Goes on to the next task; false when there is none, and the batch has ended.
    fn next(&mut self) -> bool {
        let next = self.queue.next();
        self.current = next.map(|task| Execution::new(Arc::clone(&self.queue), task));
        if self.current.is_none() {
            self.ended = true;
            if let Some(runner) = self.queue.runner() {
                runner.batch_ended();
            }
        }
        !self.ended
    }
}

/// An execution that is dropped reports itself as aborted.
impl Drop for Batch {
    fn drop(&mut self) {
        while !self.ended {
            self.current = None;
            self.next();
        }
    }
}

/// Runs a batch's tasks one after another.
struct Drive {
    /// `None` once the batch has ended or gone to the blocking pool.
    batch: Option<Batch>,
    yielded: bool,
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if !this.yielded {
            // What is spawned from a body's poll or drop runs before the connection's task, which has yet to write the
            // response. Waking itself sends this to the back of the worker's queue, behind the connection.
            this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while let Some(batch) = &mut this.batch {
            if batch.wants_blocking_thread() {
                if let Some(batch) = this.batch.take() {
                    batch.start();
                }
                break;
            }
            let progress = ready!(coop::poll_proceed(cx));
            if let Some(execution) = &mut batch.current {
                discard(ready!(execution.poll(cx)));
            }
            progress.made_progress();
            if !batch.next() {
                this.batch = None;
            }
        }
        Poll::Ready(())
    }
}
