//! What each test needs: a request without a socket, and a log.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::Request, http::HeaderMap};
use tower::ServiceExt;
use tower_background_tasks::Runner;

/// Sends a request with this header to `/`, and waits until its tasks have ended. Gives the headers of the response.
pub(crate) async fn send(app: Router, runner: &Runner, header: (&str, &str)) -> HeaderMap {
    let request = Request::get("/").header(header.0, header.1);
    let request = request.body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert!(response.status().is_success());
    let headers = response.into_parts().0.headers; // its body is dropped
    runner.idle().await;
    headers
}

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
