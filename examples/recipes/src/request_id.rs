//! The request's id in each line that a task logs. tower-http's layers are outside of ours, so that it finds the id.

use axum::{Router, extract::Request};
use tower_background_tasks::{Runner, RunnerBuilder};
use tower_http::{
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::TraceLayer,
};
use tracing::{Span, info_span};

const X_REQUEST_ID: &str = "x-request-id";

/// Puts the id into the span of each task.
pub fn builder() -> RunnerBuilder {
    Runner::builder().request_id_header(X_REQUEST_ID.parse().unwrap())
}

/// Gives each request an id, unless it brings one. In axum the last layer is the outermost.
pub fn layers(router: Router, runner: &Runner) -> Router {
    router
        .layer(runner.layer())
        .layer(TraceLayer::new_for_http().make_span_with(request_span))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}

/// Puts the id into the request's own span.
fn request_span(request: &Request) -> Span {
    let id = request.headers().get(X_REQUEST_ID);
    info_span!("request", id = id.and_then(|id| id.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::routing::get;
    use tower_background_tasks::{BackgroundTasks, Task};
    use tracing::info;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::support::send;

    /// What the subscriber of this process wrote.
    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    async fn handler(tasks: BackgroundTasks) {
        info!("ordered");
        tasks.add_task(Task::new(async { info!("mailed") }).named("mail"));
        tasks.add_task(Task::blocking(|| info!("printed")).named("print"));
    }

    /// The last word of each line that shows this id.
    fn lines_of(id: &str) -> Vec<String> {
        let written = WRITTEN.lock().unwrap();
        str::from_utf8(&written)
            .unwrap()
            .lines()
            .filter(|line| line.contains(&format!("id=\"{id}\"")))
            .filter_map(|line| line.split(' ').next_back())
            .map(str::to_owned)
            .collect()
    }

    #[tokio::test]
    async fn each_line_of_a_task_shows_the_id_of_its_request() {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(|| WRITTEN.make_writer())
            .init();
        let runner = builder().build();
        let app = layers(Router::new().route("/", get(handler)), &runner);
        send(app.clone(), &runner, (X_REQUEST_ID, "a-1")).await;
        assert_eq!(lines_of("a-1"), ["ordered", "mailed", "printed"]);

        let headers = send(app, &runner, ("accept", "*/*")).await; // it is given an id
        let id = headers[X_REQUEST_ID].to_str().unwrap();
        assert_eq!(lines_of(id), ["ordered", "mailed", "printed"]);
        println!("{}", String::from_utf8_lossy(&WRITTEN.lock().unwrap()));
    }
}
