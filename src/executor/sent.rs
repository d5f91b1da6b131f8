//! [`Sent`]: a thread of the blocking pool that was sent for, and what it does when it is there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::{
    executor::batch::Batch,
    executor::crew::Crew,
    util::contain::contain,
    util::sync::{AtomicUsize, Ordering},
};

/// How long one hop to the blocking pool serves tasks before the next one goes through the pool's own queue again: behind others that
/// wait for a thread, and not at all when the runtime is shutting down. By the system's clock, as Tokio's may be paused.
pub(crate) const HOLDS_THREAD: Duration = Duration::from_millis(10);

/// Where the system has no thread to give, it is asked again after this time.
const ASKS_AGAIN: Duration = Duration::from_millis(500);

/// It counts as coming. Where it never comes, and no other does, what waits for it ends aborted.
///
/// It holds no handle of the runtime: the pool's queue holds it, which is the runtime's.
pub(crate) struct Sent {
    crew: Arc<Crew<Batch>>,
    at: Instant,
    state: AtomicUsize,
}

const ON_ITS_WAY: usize = 0;
const HERE: usize = 1;
/// It may come nevertheless.
const GIVEN_UP: usize = 2;

impl Sent {
    /// The caller has been told by the crew to send for a thread.
    pub(crate) fn send(crew: &Arc<Crew<Batch>>, runtime: &Handle) {
        let sent = Arc::new(Self {
            crew: Arc::clone(crew),
            at: Instant::now(),
            state: AtomicUsize::new(ON_ITS_WAY),
        });
        let thread = Arc::clone(&sent);
        // Tokio panics when the system has no thread to give and the pool has none. The closure is in the pool's queue then, for a
        // thread that somebody else may send for, or nobody ever.
        if contain(|| runtime.spawn_blocking(move || thread.serve())).is_err()
            && sent.give_up()
            && crew.give_up_one()
        {
            ask_again(Asking(Some(Arc::clone(crew))), runtime);
        }
        // A pool that is shutting down drops the closure, some versions of Tokio's under the pool's own lock. What waits is then
        // dropped here, where its tasks' ends may start others.
        drop(sent);
    }

    /// Runs what waits, one batch after another, for up to [`HOLDS_THREAD`].
    fn serve(&self) {
        let Ok(runtime) = Handle::try_current() else {
            return; // not on a thread of the pool
        };
        let hopped = Instant::now();
        let mut found = if self.state.swap(HERE, Ordering::SeqCst) == ON_ITS_WAY {
            self.crew.arrive(self.at)
        } else {
            self.crew.arrive_uncounted()
        };
        loop {
            for _ in 0..found.send {
                Self::send(&self.crew, &runtime);
            }
            let Some(batch) = found.work else { return };
            batch.run_blocking(hopped);
            let now = Instant::now();
            if now.duration_since(hopped) > HOLDS_THREAD {
                if self.crew.leave(now) {
                    Self::send(&self.crew, &runtime);
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

/// The crew for which a thread is asked again. It counts as coming until then; where that never happens, what waits ends aborted.
struct Asking(Option<Arc<Crew<Batch>>>);

/// While one asks, nobody else does: each time that it is in vain, Tokio's panic tells of it.
fn ask_again(mut asking: Asking, runtime: &Handle) {
    let handle = runtime.clone();
    let ask = async move {
        let Ok(pause) = contain(|| tokio::time::sleep(ASKS_AGAIN)) else {
            return; // there is no timer
        };
        pause.await;
        if let Some(crew) = asking.0.take() {
            if crew.asks_again() {
                Sent::send(&crew, &handle);
            }
        }
    };
    let _ = contain(|| runtime.spawn(ask));
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.0.take().map(|crew| crew.stop_asking()));
    }
}
