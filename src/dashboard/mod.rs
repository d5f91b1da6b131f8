//! [`Dashboard`]: a page that shows a runner's tasks. This room uses `runner` and below.
//!
//! While the page has viewers, [`feed`] makes one snapshot a second for all of them.

mod body;
mod feed;
mod origin;
mod page;
mod snapshot;

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use tower::Service;

pub use self::body::DashboardBody;
use self::feed::{Events, Feed};
use crate::{Runner, TaskId};

/// A page that shows what a runner does, as a Tower service, from [`Runner::dashboard`].
///
/// The page shows:
///
/// - the tasks that run and wait, and their [`progress`](crate::TaskContext::progress),
/// - how many tasks ended in the last minute, by name and [`route`](crate::RunnerBuilder::route),
/// - the last failures with their causes,
/// - how full the limits are.
///
/// It updates itself, and loads nothing from other servers.
///
/// # Who may see it
///
/// **Mount it behind your authentication, or on a port of its own that only operators reach.** The
/// page shows paths, request ids and the texts of errors, and authenticates nobody. A local port
/// is no protection: any page in a browser on the same machine may reach it by DNS rebinding.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use tower_background_tasks::{BackgroundTasks, Runner};
///
/// let runner = Runner::new();
/// let app: Router = Router::new()
///     .route("/", get(async |tasks: BackgroundTasks| tasks.add_task(async {})))
///     .layer(runner.layer())
///     // After the layer, as the page adds no tasks. Add your authentication here.
///     .nest_service("/admin/tasks", runner.dashboard());
/// # drop(app);
/// # }
/// ```
///
/// # Where it is mounted
///
/// It works at any path, whether or not the router strips its prefix. Let `base` be that path:
///
/// | Request | Response |
/// |---|---|
/// | `GET base` | the page |
/// | `GET base/snapshot.json` | what the page shows, as JSON |
/// | `GET base/events` | the same once a second, as [server-sent events] |
/// | `POST base/cancel?id=17` | cancels a task, if [`allow_cancel`](Self::allow_cancel) is set |
///
/// The JSON is for the page, and may change with it. Programs use [`Runner::tasks`] and
/// [`Runner::stats`].
///
/// A stream of events ends when the runner begins to shut down. So [`Runner::serve`] does not wait
/// for viewers. If you stop the server yourself, before its runner shuts down, its graceful
/// shutdown waits for them.
///
/// # Cost
///
/// After the first call of [`Runner::dashboard`], the runner counts each end by name and route,
/// under a lock of the thread's shard. While the page has viewers, one snapshot a second is made
/// for all of them. Each request for `snapshot.json` makes one more. A snapshot briefly locks each
/// queue.
///
/// [server-sent events]: https://html.spec.whatwg.org/multipage/server-sent-events.html
#[derive(Clone)]
pub struct Dashboard {
    feed: Arc<Feed>,
}

impl Runner {
    /// Makes a page that shows what this runner does. It needs protection: see [`Dashboard`].
    #[cfg_attr(docsrs, doc(cfg(feature = "dashboard")))]
    pub fn dashboard(&self) -> Dashboard {
        self.owner().shared.tally(); // counts from now on
        Dashboard {
            feed: Arc::new(Feed::new(self.clone(), false)),
        }
    }
}

impl Dashboard {
    /// Lets everyone who reaches the page [cancel](Runner::cancel) tasks. By default nobody may.
    ///
    /// The page refuses a request from a page of another origin, by the headers [`Sec-Fetch-Site`]
    /// and [`Origin`]. Browsers send `Sec-Fetch-Site` only over HTTPS and to the local machine.
    /// Without it, `Origin` must match `Host`. So a proxy that is reached over unencrypted HTTP
    /// must not change `Host`: nginx needs `proxy_set_header Host $http_host`. Otherwise all these
    /// requests are refused.
    ///
    /// [`Sec-Fetch-Site`]: https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header
    /// [`Origin`]: https://www.rfc-editor.org/rfc/rfc6454#section-7
    #[must_use]
    pub fn allow_cancel(self) -> Self {
        Self {
            feed: Arc::new(Feed::new(self.feed.runner().clone(), true)),
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<DashboardBody> {
        let path = request.uri().path();
        let last = path.rsplit_once('/').map_or(path, |(_, last)| last);
        let (is_get, is_post) = (
            matches!(*request.method(), Method::GET | Method::HEAD),
            request.method() == Method::POST,
        );
        match last {
            "cancel" if is_post => self.cancel(request),
            "cancel" => not_allowed("POST"),
            _ if !is_get => not_allowed("GET, HEAD"),
            "events" => {
                let events = Events::new(Arc::clone(&self.feed));
                let mut response = typed("text/event-stream", DashboardBody::events(events));
                // Otherwise nginx buffers events.
                let headers = response.headers_mut();
                headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
                response
            }
            "snapshot.json" => {
                let json = Bytes::from(self.feed.json());
                typed("application/json", json.into())
            }
            _ => page::response(),
        }
    }

    fn cancel<B>(&self, request: &Request<B>) -> Response<DashboardBody> {
        if !self.feed.allows_cancel() {
            return plain(
                StatusCode::FORBIDDEN,
                "nobody may cancel tasks here: see `Dashboard::allow_cancel`",
            );
        }
        if !origin::is_own(request) {
            return plain(
                StatusCode::FORBIDDEN,
                "the request comes from a page of another origin",
            );
        }
        let query = request.uri().query().unwrap_or_default();
        let id = query.strip_prefix("id=").map(str::parse::<u64>);
        let Some(Ok(id)) = id else {
            return plain(StatusCode::BAD_REQUEST, "which task? `cancel?id=17`");
        };
        let (runner, id) = (self.feed.runner(), TaskId::from(id));
        if runner.cancel(id) {
            return with_status(StatusCode::NO_CONTENT, DashboardBody::empty());
        }
        match runner.tasks().iter().any(|task| task.id() == id) {
            true => plain(
                StatusCode::CONFLICT,
                "a blocking task that runs cannot be stopped",
            ),
            false => plain(StatusCode::NOT_FOUND, "it has ended"),
        }
    }
}

impl<B> Service<Request<B>> for Dashboard {
    type Response = Response<DashboardBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut response = self.answer(&request);
        if request.method() == Method::HEAD {
            *response.body_mut() = DashboardBody::empty();
        }
        ready(Ok(response))
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard")
            .field("runner", self.feed.runner())
            .field("allows_cancel", &self.feed.allows_cancel())
            .finish()
    }
}

fn not_allowed(methods: &'static str) -> Response<DashboardBody> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "");
    let allow = HeaderValue::from_static(methods);
    response.headers_mut().insert(ALLOW, allow);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<DashboardBody> {
    let mut response = typed("text/plain; charset=utf-8", Bytes::from(text).into());
    *response.status_mut() = status;
    response
}

fn typed(content_type: &'static str, body: DashboardBody) -> Response<DashboardBody> {
    let mut response = with_status(StatusCode::OK, body);
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn with_status(status: StatusCode, body: DashboardBody) -> Response<DashboardBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
