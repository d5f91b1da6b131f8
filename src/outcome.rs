//! [`ResponseOutcome`]: how a response ended. This is data only: `http/end_guard.rs` decides it.

use std::time::Duration;

use http::StatusCode;

/// How a response ended. A task gets it from
/// [`TaskContext::response`](crate::TaskContext::response), and a condition from
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
    /// The status of the response head, or `None` if there was no response.
    pub status: Option<StatusCode>,
    /// The bytes of the body's data that the server took. Headers and chunk sizes do not count. If
    /// a layer further out compresses the body, these are the bytes before compression.
    pub body_bytes: u64,
    /// The time from the request's arrival at the layer, or from the call of
    /// [`Runner::attach`](crate::Runner::attach), to the end of the response.
    pub elapsed: Duration,
    /// The [status code](https://grpc.io/docs/guides/status-codes/) of a gRPC call, from the
    /// trailers, or from the head if there is no body. It is 2 (`UNKNOWN`) if the call ended
    /// without a status, for example because the client disconnected. It is `None` for a response
    /// that is not gRPC, and for gRPC-Web, which has its status in the body.
    pub grpc_status: Option<u32>,
}

impl ResponseOutcome {
    /// Makes an outcome of zero bytes and zero time, for the test of a condition. The test then
    /// sets the fields that the condition reads.
    pub fn new(end: ResponseEnd, status: Option<StatusCode>) -> Self {
        Self {
            end,
            status,
            body_bytes: 0,
            elapsed: Duration::ZERO,
            grpc_status: None,
        }
    }

    /// Returns true if the status is 2xx or 3xx. For a gRPC call, `grpc_status` must also be 0.
    ///
    /// So a client that disconnects after the handler has committed its work still gets its mail.
    /// The status of a gRPC call comes last: if the client disconnects before that, the call is no
    /// success.
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

    /// Returns true if the server took the whole body ([`ResponseEnd::Completed`]), whatever the
    /// status.
    pub fn is_complete(&self) -> bool {
        self.end == ResponseEnd::Completed
    }

    /// Returns true if there was a response head. Its body may have failed.
    pub fn is_responded(&self) -> bool {
        self.status.is_some()
    }
}

/// What ended a response.
///
/// The layer sees only what the server takes. Neither of them knows what the client received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseEnd {
    /// The server took the whole body.
    ///
    /// A dropped body counts as taken whole if it had nothing more to give. That is so in these
    /// cases:
    ///
    /// - Its `is_end_stream` was true, or its trailers had passed.
    /// - All bytes of its exact size hint, or else of the response's `Content-Length`, had passed.
    ///   This does not apply over HTTP/2 and later to a response that announces trailers in a
    ///   [`Trailer` header](https://www.rfc-editor.org/rfc/rfc9110#section-6.6.2).
    /// - The response has no content by [RFC 9110, section
    ///   6.4.1](https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1): an answer to HEAD, a
    ///   success for CONNECT, status 1xx, 204 or 304.
    Completed,
    /// The body was dropped before its end: the client disconnected, the server gave up, or
    /// [`Runner::serve`](crate::Runner::serve) cut the response off.
    Aborted,
    /// The body returned an error, or ended too early: before all bytes of its exact size hint, or
    /// else of the response's `Content-Length`, had passed.
    BodyFailed,
    /// The inner service returned an error, so there was no response.
    ServiceFailed,
    /// The request was dropped before there was a response. Either the client disconnected while
    /// the handler ran, or a timeout outside the layer expired: the layer cannot distinguish them.
    /// tonic applies `grpc-timeout` and `Server::timeout` outside of all layers.
    Cancelled,
    /// The handler or the body panicked, or the response was dropped while its thread unwound from
    /// another panic.
    Panicked,
}
