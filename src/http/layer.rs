//! [`BackgroundTasksLayer`].

use tower::Layer;

use super::service::BackgroundTasksService;
use crate::Runner;

/// Gives each request a [`BackgroundTasks`](crate::BackgroundTasks) queue, and hands its tasks to a [`Runner`] when the
/// response has ended.
///
/// [`Runner::layer`] is the usual way to one.
///
/// # Where it belongs in a stack
///
/// Outermost: with axum, the last `.layer(…)` of the router, behind all routes (those added after it have no queue). What stands inside of it is seen, what stands outside is not:
///
/// | | inside of this layer | outside of this layer |
/// |---|---|---|
/// | compression, or whatever else buffers the body | the end is that of the compressed body, as the server takes it | the end is that of the plain body, which is earlier: a task may start while compressed bytes still wait; `body_bytes` counts plain bytes |
/// | a timeout | the service's error: [`ServiceFailed`](crate::ResponseEnd::ServiceFailed), or the response that a layer makes of it | [`Cancelled`](crate::ResponseEnd::Cancelled): the layer's future is dropped |
/// | a layer that catches panics | its 500 is the response | [`Panicked`](crate::ResponseEnd::Panicked) |
/// | a layer that answers by itself (authentication, rate limits, CORS) | its answer is seen, and tasks added before it are kept | its answer has no queue, and needs none |
/// | middleware that adds tasks | finds the queue | gets [`MissingLayer`](crate::MissingLayer) |
///
/// Of whatever is put on by [`Router::layer`](https://docs.rs/axum/0.8/axum/struct.Router.html#method.layer), axum makes several boxes for each
/// request. A layer around the whole router spares all but the body's, some 0.1 µs; what
/// [`axum::serve`](https://docs.rs/axum/0.8/axum/fn.serve.html) takes is then made of it by hand (with tower's feature `util`):
///
/// ```no_run
/// use axum::{Router, ServiceExt, body::Body, extract::Request, response::Response, routing::get};
/// use tower::{Layer, util::MapResponse};
/// use tower_background_tasks::{BackgroundTasks, ResponseBody, Runner};
///
/// # async fn serve(listener: tokio::net::TcpListener, runner: Runner) -> std::io::Result<()> {
/// let router = Router::new().route("/", get(async |tasks: BackgroundTasks| tasks.add_task(async {})));
/// let app = MapResponse::new(
///     runner.layer().layer(router),
///     |response: Response<ResponseBody<Body>>| response.map(Body::new),
/// );
/// axum::serve(listener, ServiceExt::<Request>::into_make_service(app)).await
/// # }
/// ```
///
/// Of two such layers around one another each has its own queue and its own [`Runner`]: the handler sees the inner one, what
/// stands between them the outer one, and each runs its own tasks. Tasks returned with the response go to the inner one.
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

impl Runner {
    /// The layer that gives each request its [`BackgroundTasks`](crate::BackgroundTasks), run by this runner.
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
