//! [`ResponseOutcome`]: how a response ended. Data only: `http/end_guard.rs` decides.

use std::time::Duration;

use http::StatusCode;

/// How a response ended, for a task to ask: [`TaskContext::response`](crate::TaskContext::response),
/// [`Task::run_if`](crate::Task::run_if).
///
/// ```
/// use tower_background_tasks::{ResponseOutcome, Task};
///
/// let billing = Task::with_context(|cx| async move {
///     if let Some(ResponseOutcome { body_bytes, elapsed, .. }) = cx.response() {
///         println!("{body_bytes} bytes in {elapsed:?}");
///     }
/// });
/// # drop(billing);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseOutcome {
    /// What ended the response.
    pub end: ResponseEnd,
    /// The status of the response head, or `None` where there was no response.
    pub status: Option<StatusCode>,
    /// Bytes of the body's data that the server took: without headers and chunk sizes, and before any compression that
    /// stands outside the layer.
    pub body_bytes: u64,
    /// From the request's arrival at the layer to the end of the response.
    pub elapsed: Duration,
}

impl ResponseOutcome {
    /// One without a byte, that took no time: for a test of a condition, which sets what else it asks for.
    pub fn new(end: ResponseEnd, status: Option<StatusCode>) -> Self {
        Self {
            end,
            status,
            body_bytes: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// The server took the whole body ([`ResponseEnd::Completed`]), and the status is below 400.
    pub fn is_success(&self) -> bool {
        self.end == ResponseEnd::Completed
            && self.status.is_some_and(|status| status.as_u16() < 400)
    }

    /// There was a response head, whatever became of the body.
    pub fn is_responded(&self) -> bool {
        self.status.is_some()
    }
}

/// What ended a response.
///
/// "Ended" means handed whole to the server. Whether the client received it, no server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseEnd {
    /// The server took the whole body.
    ///
    /// So it did where the body was dropped with nothing more owed: `is_end_stream` was true, trailers or as many bytes as
    /// the body's exact size hint (or else the response's `Content-Length`) had gone by (unless over HTTP/2 the response announces trailers
    /// in a [`Trailer` header](https://www.rfc-editor.org/rfc/rfc9110#section-6.6.2)), or the response has no content by
    /// [RFC 9110, section 6.4.1](https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1): an answer to HEAD, a success for
    /// CONNECT, status 1xx, 204 or 304.
    Completed,
    /// The body was dropped before its end: the client left, or the server gave up.
    Aborted,
    /// The body gave an error, or ended short of its own exact size hint (or else the response's `Content-Length`).
    BodyFailed,
    /// The inner service returned an error, so there was no response.
    ServiceFailed,
    /// The request was dropped before there was a response: the client left while the handler ran (and the server noticed), or
    /// a timeout outside the layer struck.
    Cancelled,
    /// A panic in the handler or the body; or the response was dropped while its thread unwound from a panic elsewhere.
    Panicked,
}
