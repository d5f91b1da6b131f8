//! [`ResponseOutcome`]: how a response ended. Data only: `http/end_guard.rs` decides.

use std::time::Duration;

use http::StatusCode;

/// How a response ended, for a task that asks:
/// [`TaskContext::response`](crate::TaskContext::response), [`Task::run_if`](crate::Task::run_if).
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
    /// The status of the response head, or `None` if there was no response.
    pub status: Option<StatusCode>,
    /// Bytes of the body's data that the server took: without headers and chunk sizes, and before
    /// any compression outside the layer.
    pub body_bytes: u64,
    /// The time from the request's arrival at the layer to the end of the response.
    pub elapsed: Duration,
    /// The [status code](https://grpc.io/docs/guides/status-codes/) of a gRPC call, from its trailers,
    /// or from its head if it has no body. 2 (`UNKNOWN`) if the call ended without one, such as when
    /// its client left. `None` for a response that is not gRPC, and for gRPC-Web, which has its
    /// status in the body.
    pub grpc_status: Option<u32>,
}

impl ResponseOutcome {
    /// Makes an outcome without a byte, which took no time. A test of a condition sets the fields
    /// that the condition reads.
    pub fn new(end: ResponseEnd, status: Option<StatusCode>) -> Self {
        Self {
            end,
            status,
            body_bytes: 0,
            elapsed: Duration::ZERO,
            grpc_status: None,
        }
    }

    /// Returns true if the status is 2xx or 3xx, whether or not the client stayed to read the body.
    /// Of a gRPC call, the `grpc-status` must be 0, too.
    ///
    /// So a client that leaves after the handler has committed its work still gets its mail. In
    /// gRPC, where the status comes last, a call whose client leaves before it is no success.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_background_tasks::{ResponseEnd, ResponseOutcome};
    ///
    /// let left_early = ResponseOutcome::new(ResponseEnd::Aborted, Some(StatusCode::CREATED));
    /// assert!(left_early.is_success() && !left_early.is_complete());
    /// ```
    pub fn is_success(&self) -> bool {
        let is_success = |status: StatusCode| status.is_success() || status.is_redirection();
        self.status.is_some_and(is_success) && self.grpc_status.is_none_or(|code| code == 0)
    }

    /// Returns true if the server took the whole body ([`ResponseEnd::Completed`]), whatever the status.
    pub fn is_complete(&self) -> bool {
        self.end == ResponseEnd::Completed
    }

    /// Returns true if there was a response head, whatever became of the body.
    pub fn is_responded(&self) -> bool {
        self.status.is_some()
    }
}

/// What ended a response.
///
/// "Ended" means handed whole to the server. No server knows whether the client received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseEnd {
    /// The server took the whole body.
    ///
    /// A body that is dropped with nothing more owed counts as taken whole. Nothing more is owed in
    /// these cases:
    ///
    /// - `is_end_stream` was true, or trailers had passed.
    /// - All bytes of the body's exact size hint, or else of the response's `Content-Length`, had
    ///   passed. Over HTTP/2 this does not hold if the response announces trailers in a [`Trailer`
    ///   header](https://www.rfc-editor.org/rfc/rfc9110#section-6.6.2).
    /// - The response has no content by [RFC 9110, section
    ///   6.4.1](https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1): an answer to HEAD, a success
    ///   for CONNECT, status 1xx, 204 or 304.
    Completed,
    /// The body was dropped before its end: the client left, or the server gave up.
    Aborted,
    /// The body gave an error, or ended short of its exact size hint (or else the response's
    /// `Content-Length`).
    BodyFailed,
    /// The inner service returned an error, so there was no response.
    ServiceFailed,
    /// The request was dropped before there was a response. The client left while the handler ran
    /// (and the server noticed), or a timeout outside the layer expired. The two look the same from
    /// here. This is so for the `grpc-timeout` of a call, and for tonic's
    /// `Server::timeout`: tonic keeps both outside of all layers.
    Cancelled,
    /// The handler or the body panicked; or the response was dropped while its thread unwound from
    /// a panic elsewhere.
    Panicked,
}
