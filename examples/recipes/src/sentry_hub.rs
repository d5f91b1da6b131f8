//! A Sentry hub: what a task captures has the scope of its request.

use std::sync::Arc;

use axum::{Router, extract::Request};
use sentry::{Hub, integrations::tower::NewSentryLayer};
use tower_background_tasks::{Runner, RunnerBuilder};

/// Takes the hub of the request. It is one hub: what a task adds to its scope, the request's later
/// tasks have too.
pub fn builder() -> RunnerBuilder {
    Runner::builder()
        .capture(|_| Some(Hub::current()))
        .around(|cx, next| match cx.get::<Arc<Hub>>() {
            Some(hub) => Hub::run(Arc::clone(hub), || next.run()),
            None => next.run(), // a task of no request
        })
}

/// Gives each request a hub. In axum the last layer is the outermost.
pub fn layers(router: Router, runner: &Runner) -> Router {
    router
        .layer(runner.layer())
        .layer(NewSentryLayer::<Request>::new_from_top())
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use sentry::{Level, capture_message, configure_scope, test::with_captured_events};
    use tokio::task::yield_now;
    use tower_background_tasks::BackgroundTasks;

    use super::*;
    use crate::support::send;

    async fn handler(tasks: BackgroundTasks) {
        configure_scope(|scope| scope.set_tag("order", 7));
        tasks.add_task(async {
            yield_now().await;
            capture_message("no mail server", Level::Error);
        });
        tasks.add_blocking_task(|| {
            capture_message("no printer", Level::Error);
        });
    }

    async fn serve_one() {
        let runner = builder().build();
        let app = layers(Router::new().route("/", get(handler)), &runner);
        send(app, &runner, ("accept", "*/*")).await;
    }

    #[test]
    fn what_a_task_captures_has_the_tag_of_its_request() {
        let events = with_captured_events(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(serve_one());
        });
        let events: Vec<_> = events
            .iter()
            .map(|event| (event.message.as_deref().unwrap(), &*event.tags["order"]))
            .collect();
        assert_eq!(events, [("no mail server", "7"), ("no printer", "7")]);
    }
}
