//! [`BackgroundTasksLayer`].

use tower::Layer;

use crate::{BackgroundTasksService, Runner};

/// Gives each request a [`BackgroundTasks`](crate::BackgroundTasks) queue, and hands its tasks to a [`Runner`] when the
/// response has ended.
///
/// [`Runner::layer`] is the usual way to one. Put it outside of (added after) whatever changes the body, such as compression:
/// such layers end the body inside them before their own. What stands outside of this layer ends later than it can see.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_background_tasks::{BackgroundTasks, BackgroundTasksLayer};
///
/// let layer = BackgroundTasksLayer::new();
/// let runner = layer.runner().clone();
/// let app: Router = Router::new()
///     .route("/", get(async |tasks: BackgroundTasks| tasks.add_task(async {})))
///     .layer(layer);
/// ```
#[derive(Clone, Debug, Default)]
pub struct BackgroundTasksLayer {
    runner: Runner,
}

impl BackgroundTasksLayer {
    /// A layer with a [`Runner`] of its own, without limits.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_runner(runner: Runner) -> Self {
        Self { runner }
    }

    /// The runner behind this layer.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }
}

impl<S> Layer<S> for BackgroundTasksLayer {
    type Service = BackgroundTasksService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BackgroundTasksService::new(inner, self.runner.clone())
    }
}
