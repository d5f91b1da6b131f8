//! [`BackgroundTasksLayer`].

use tower::Layer;

use super::service::BackgroundTasksService;
use crate::Runner;

/// Gives each request a [`BackgroundTasks`](crate::BackgroundTasks) queue, and hands the queue's
/// tasks to a [`Runner`] when the response has ended.
///
/// Usually made by [`Runner::layer`].
///
/// # Where it belongs in a stack
///
/// Make it the outermost layer. With axum this is the last `.layer(…)` of the router, after all
/// routes: routes that are added later have no queue. This layer sees what is inside it, and not
/// what is outside:
///
/// - Compression, or another layer that buffers the body. Inside, the end is that of the
///   compressed body, as the server takes it. Outside, it is that of the uncompressed body, which
///   comes earlier. A task may then start while compressed bytes still wait, and `body_bytes`
///   counts uncompressed bytes.
/// - A timeout. Inside, its error is the service's
///   ([`ServiceFailed`](crate::ResponseEnd::ServiceFailed)), unless a layer converts it into a
///   response. Outside, it drops this layer's future
///   ([`Cancelled`](crate::ResponseEnd::Cancelled)).
/// - A layer that catches panics. Inside, its 500 is the response. Outside, the end is
///   [`Panicked`](crate::ResponseEnd::Panicked).
/// - A layer that answers by itself (authentication, rate limits, CORS). Inside, this layer sees
///   its answer and keeps tasks that were added before. Outside, its answer has no queue, and
///   needs none.
/// - Middleware that adds tasks. Inside, it finds the queue. Outside, it gets
///   [`MissingLayer`](crate::MissingLayer).
/// - A retry. Inside, all attempts share the request's queue, and the tasks of each run. Outside,
///   each attempt is a request with a queue of its own.
/// - Middleware that spawns the handler. Inside, the handler continues when the client
///   disconnects. But the response has ended ([`Cancelled`](crate::ResponseEnd::Cancelled)), and
///   the tasks are skipped: use [`detached`](Self::detached) instead. Outside, this layer's future
///   continues with the handler, and its response decides whether the tasks run.
///
/// With [`Router::layer`](https://docs.rs/axum/0.8/axum/struct.Router.html#method.layer), axum
/// allocates several boxes for each request. A layer around the whole router saves all of them
/// except the body's, about 0.1 µs. The service for
/// [`axum::serve`](https://docs.rs/axum/0.8/axum/fn.serve.html) must then be made by hand, with
/// tower's feature `util`:
///
/// ```no_run
/// use axum::{
///     Router, ServiceExt, body::Body, extract::Request, response::Response,
///     routing::get,
/// };
/// use tower::{Layer, util::MapResponse};
/// use tower_background_tasks::{BackgroundTasks, ResponseBody, Runner};
///
/// # async fn serve(listener: tokio::net::TcpListener, runner: Runner) -> std::io::Result<()> {
/// let handler = async |tasks: BackgroundTasks| tasks.add_task(async {});
/// let router = Router::new().route("/", get(handler));
/// let app = MapResponse::new(
///     runner.layer().layer(router),
///     |response: Response<ResponseBody<Body>>| response.map(Body::new),
/// );
/// axum::serve(listener, ServiceExt::<Request>::into_make_service(app)).await
/// # }
/// ```
///
/// If two such layers are nested, each has its own queue and its own [`Runner`], and runs its own
/// tasks. The handler sees the inner queue. Middleware between the two sees the outer queue. Tasks
/// that are returned with the response go to the inner layer.
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
    /// Makes a layer with a [`Runner`] of its own, without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the runner behind this layer.
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

impl Runner {
    /// Returns a layer that gives each request its [`BackgroundTasks`](crate::BackgroundTasks),
    /// which this runner runs.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_background_tasks::{BackgroundTasks, Runner};
    ///
    /// let runner = Runner::new();
    /// let app: Router = Router::new()
    ///     .route("/", post(async |tasks: BackgroundTasks| tasks.add_task(async {})))
    ///     .layer(runner.layer());
    /// ```
    pub fn layer(&self) -> BackgroundTasksLayer {
        BackgroundTasksLayer {
            runner: self.clone(),
        }
    }
}
