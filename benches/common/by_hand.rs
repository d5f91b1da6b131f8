//! What one would write without this crate, with Tokio's and `futures-util`'s parts.

use std::{
    any::type_name,
    future::{Ready, ready},
    panic::{AssertUnwindSafe, Location},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::State, routing::get};
use futures_util::FutureExt;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span};

use super::sides::{BoxSide, side};

/// `tasks` tasks that a shutdown can wait for.
pub(crate) fn tracked(tasks: usize) -> BoxSide {
    let handler = async move |State(tracker): State<TaskTracker>| {
        for _ in 0..tasks {
            tracker.spawn(ready(()));
        }
        "hello"
    };
    let router = Router::new().route("/", get(handler));
    side(router.with_state(TaskTracker::new()))
}

/// Tasks that a shutdown can wait for, contained, in a span, and counted.
///
/// It keeps fewer promises all the same: the task may start before its response has ended, does not
/// know how it ended, and has no place in an order.
#[derive(Default)]
struct ByHand {
    tracker: TaskTracker,
    added: AtomicUsize,
    ended: AtomicUsize,
}

impl ByHand {
    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.added.fetch_add(1, Ordering::Relaxed);
        let span = info_span!(
            parent: None,
            "background_task",
            task.id = id,
            otel.name = type_name::<Ready<()>>(),
            otel.kind = "internal",
            task.kind = "async",
            code.file.path = Location::caller().file(),
            code.line.number = i64::from(Location::caller().line()),
        );
        let this = Arc::clone(self);
        let task = async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                error!("background task panicked");
            }
            this.ended.fetch_add(1, Ordering::Relaxed);
        };
        self.tracker.spawn(task.instrument(span));
    }
}

pub(crate) fn by_hand() -> BoxSide {
    let handler = async |State(tasks): State<Arc<ByHand>>| {
        tasks.spawn(ready(()));
        "hello"
    };
    let router = Router::new().route("/", get(handler));
    side(router.with_state(Arc::<ByHand>::default()))
}
