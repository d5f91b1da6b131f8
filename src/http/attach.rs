//! [`Runner::attach`], and how a response carries a handler's stand-alone queue to a runner.

use std::sync::Arc;

use http::{Extensions, Method, Response, Version};
use http_body::Body;

use super::{body::ResponseBody, end_guard::EndGuard};
use crate::{BackgroundTasks, Runner, queue::Queue};

/// Tasks that a response carries in its extensions.
#[derive(Clone)]
struct Attached(BackgroundTasks);

/// Attaches `tasks` behind those that are already attached.
#[cfg(feature = "axum")]
pub(crate) fn attach(extensions: &mut Extensions, tasks: BackgroundTasks) {
    match extensions.get::<Attached>() {
        // A held queue keeps its tasks until its release, so no other tasks may join it.
        Some(Attached(first)) if !first.queue().root().is_held() => {
            first.queue().merge(tasks.queue());
        }
        _ => {
            extensions.insert(Attached(tasks));
        }
    }
}

/// Takes the attached tasks, so that no outer layer takes them again.
#[inline]
pub(crate) fn take(extensions: &mut Extensions) -> Option<BackgroundTasks> {
    extensions.remove().map(|Attached(tasks)| tasks)
}

impl Runner {
    /// Runs `tasks` when `response` has ended. Use this in a service without
    /// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
    ///
    /// The elapsed time of the response counts from this call. The request is unknown here, which
    /// matters in two cases:
    ///
    /// - A response to HEAD whose body claims content counts as
    ///   [`Aborted`](crate::ResponseEnd::Aborted).
    /// - Over HTTP/2, a response that reaches its length counts as
    ///   [`Completed`](crate::ResponseEnd::Completed), even if announced trailers are missing.
    ///
    /// This does nothing to a queue that already has a runner, from a layer or an earlier call.
    /// Its tasks wait for that response.
    ///
    /// ```
    /// use http::Response;
    /// use tower_background_tasks::{BackgroundTasks, Runner};
    ///
    /// fn respond(runner: &Runner) -> Response<impl http_body::Body> {
    ///     let tasks = BackgroundTasks::new();
    ///     tasks.add_task(async { println!("answered") });
    ///     runner.attach(Response::new(String::from("hello")), tasks)
    /// }
    /// # let _ = respond(&Runner::new());
    /// ```
    pub fn attach<B: Body>(
        &self,
        response: Response<B>,
        tasks: BackgroundTasks,
    ) -> Response<ResponseBody<B>> {
        let queue = Queue::of_response(Arc::clone(self.owner()));
        queue.merge(tasks.queue());
        drop(tasks);
        let guard = EndGuard::new(queue, &Method::GET, Version::HTTP_11);
        ResponseBody::guarded(response, Some(guard))
    }
}
