//! [`Runner::attach`], and how a handler's stand-alone queue travels with its response to whoever runs it.

use std::sync::Arc;

use http::{Extensions, Method, Response, Version};
use http_body::Body;

use super::{body::ResponseBody, end_guard::EndGuard};
use crate::{BackgroundTasks, Runner, queue::Queue};

/// In a response's extensions: tasks that came with the response.
#[derive(Clone)]
struct Attached(BackgroundTasks);

/// Puts `tasks` behind what is attached already.
#[cfg(feature = "axum")]
pub(crate) fn attach(extensions: &mut Extensions, tasks: BackgroundTasks) {
    match extensions.get::<Attached>() {
        Some(Attached(first)) => first.queue().merge(tasks.queue()),
        None => {
            extensions.insert(Attached(tasks));
        }
    }
}

/// Takes what is attached, so that no layer further out takes it too.
#[inline]
pub(crate) fn take(extensions: &mut Extensions) -> Option<BackgroundTasks> {
    extensions.remove().map(|Attached(tasks)| tasks)
}

impl Runner {
    /// Runs `tasks` when `response` has ended: for a service without [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
    ///
    /// The time the response took counts from this call. The request is not known here: an answer to HEAD whose body says that it has
    /// content counts as [`Aborted`](crate::ResponseEnd::Aborted), and over HTTP/2 one whose length is reached as
    /// [`Completed`](crate::ResponseEnd::Completed), though it may have announced trailers that are missing. A queue that has its
    /// runner already, from a layer or an earlier call, is left alone: its tasks wait for that response.
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
