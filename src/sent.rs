//! [`Sent`]: a thread of the blocking pool that was sent for, and what it does when it is there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::{
    batch::Batch,
    contain::contain,
    crew::Crew,
    sync::{AtomicUsize, Ordering},
};

/// How long one hop to the blocking pool serves tasks before the next one goes through the pool's own queue again: behind others that
/// wait for a thread, and not at all when the runtime is shutting down. By the system's clock, as Tokio's may be paused.
pub(crate) const HOLDS_THREAD: Duration = Duration::from_millis(10);

/// Where the system has no thread to give, it is asked again after this time.
const ASKS_AGAIN: Duration = Duration::from_millis(100);

/// It counts as coming. Where it never comes, and no other does, what waits for it ends aborted.
pub(crate) struct Sent {
    crew: Arc<Crew<Batch>>,
    runtime: Handle,
    at: Instant,
    state: AtomicUsize,
}

const ON_ITS_WAY: usize = 0;
const HERE: usize = 1;
/// Another was sent for in its place. It may come nevertheless.
const GIVEN_UP: usize = 2;

impl Sent {
    /// The caller has been told by the crew to send for a thread.
    pub(crate) fn send(crew: Arc<Crew<Batch>>, runtime: Handle) {
        let sent = Arc::new(Self {
            crew,
            runtime,
            at: Instant::now(),
            state: AtomicUsize::new(ON_ITS_WAY),
        });
        let thread = Arc::clone(&sent);
        // Tokio panics when the system has no thread to give and the pool has none. The closure is in the pool's queue then, for a
        // thread that somebody else may send for, or nobody ever.
        if contain(|| sent.runtime.spawn_blocking(move || thread.serve())).is_err()
            && sent.give_up()
            && sent.crew.give_up_one()
        {
            sent.ask_again();
        }
        // A pool that is shutting down drops the closure, some versions of Tokio's under the pool's own lock. What waits is then
        // dropped here, where its tasks' ends may start others.
        drop(sent);
    }

    /// Sends for another in place of this one, which was given up, after a while.
    fn ask_again(&self) {
        let asking = Asking(Some(Arc::clone(&self.crew)));
        let runtime = self.runtime.clone();
        let ask = async move {
            if let Ok(pause) = contain(|| tokio::time::sleep(ASKS_AGAIN)) {
                pause.await;
                asking.ask(runtime);
            }
        };
        let _ = contain(|| self.runtime.spawn(ask));
    }

    /// Runs what waits, one batch after another, for up to [`HOLDS_THREAD`].
    fn serve(&self) {
        let hopped = Instant::now();
        let mut found = if self.state.swap(HERE, Ordering::SeqCst) == ON_ITS_WAY {
            self.crew.arrive(self.at)
        } else {
            self.crew.arrive_uncounted()
        };
        loop {
            for _ in 0..found.send {
                self.send_another();
            }
            let Some(batch) = found.work else { return };
            batch.run_blocking(hopped);
            let now = Instant::now();
            if now.duration_since(hopped) > HOLDS_THREAD {
                if self.crew.leave(now) {
                    self.send_another();
                }
                return;
            }
            found = self.crew.next(now);
        }
    }

    /// False where it has come already.
    fn give_up(&self) -> bool {
        let given_up =
            self.state
                .compare_exchange(ON_ITS_WAY, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst);
        given_up.is_ok()
    }

    fn send_another(&self) {
        Self::send(Arc::clone(&self.crew), self.runtime.clone());
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let missed = match self.state.load(Ordering::SeqCst) {
            ON_ITS_WAY => self.crew.miss(),
            GIVEN_UP => self.crew.miss_uncounted(),
            _ => return,
        };
        drop(missed);
    }
}

/// Counts as coming in place of a thread that was given up, until it has asked again. The crew it is of.
struct Asking(Option<Arc<Crew<Batch>>>);

impl Asking {
    fn ask(mut self, runtime: Handle) {
        if let Some(crew) = self.0.take() {
            Sent::send(crew, runtime);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.0.take().map(|crew| crew.miss()));
    }
}
