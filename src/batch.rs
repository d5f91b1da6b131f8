//! [`Batch`]: a queue's turn on the runner. Keeps the promises "once", "order" and "never on the connection".
//!
//! A batch is the one right to take tasks out of its queue. It is handed from the async runtime to the blocking pool and
//! back as the tasks want it; wherever it is dropped unfinished, what is left of it ends aborted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{runtime::Handle, task::coop};

use crate::{Runner, Task, contain::contain, execution::Execution, queue::Queue};

pub(crate) struct Batch {
    queue: Arc<Queue>,
    /// The task whose turn it is. `None` only when the queue is empty and the batch has ended.
    current: Option<Execution>,
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
                self.start_blocking(runtime);
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

    /// One hop to the blocking pool serves all the blocking tasks in a row.
    fn start_blocking(mut self, runtime: Handle) {
        runtime.clone().spawn_blocking(move || {
            while self.wants_blocking_thread() {
                if let Some(execution) = self.current.take() {
                    execution.run_here();
                }
                if !self.next() {
                    return;
                }
            }
            runtime.spawn(self.drive());
        });
    }

    fn wants_blocking_thread(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(Execution::wants_blocking_thread)
    }

    /// Goes on to the next task; false when there is none, and the batch has ended.
    fn next(&mut self) -> bool {
        self.current = self
            .queue
            .next()
            .map(|task| Execution::new(Arc::clone(&self.queue), task));
        if self.current.is_none() {
            self.ended();
        }
        self.current.is_some()
    }

    fn ended(&self) {
        if let Some(runner) = self.queue.runner() {
            runner.batch_ended();
        }
    }
}

/// An execution that is dropped reports itself as aborted.
impl Drop for Batch {
    fn drop(&mut self) {
        while self.current.take().is_some() {
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
                ready!(execution.poll(cx));
            }
            progress.made_progress();
            if !batch.next() {
                this.batch = None;
            }
        }
        Poll::Ready(())
    }
}
