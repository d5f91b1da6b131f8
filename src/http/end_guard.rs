//! [`EndGuard`]: the one place that decides whether and how a response ended. Keeps the promises
//! "once" and "not before".
//!
//! What a server does with a body is taken from hyper (`proto/h1/dispatch.rs`, `proto/h2/mod.rs`)
//! and from tests on sockets:
//!
//! 1. Most bodies are never polled to `None`. hyper drops a body once nothing more is owed: when
//!    `is_end_stream` is true, after the trailers, or when `Content-Length` is reached. It drops
//!    the body unpolled if the response has no content. Over HTTP/2, hyper polls on past the
//!    length, but a client may disconnect there, as it has everything but trailers. So a drop is
//!    an end too, and the frames before it decide which.
//! 2. The last frame is not an end: hyper has it, but has not written it. When hyper drops the
//!    body, it has.
//! 3. An end is taken once, as the queue leaves the guard with it.
//! 4. If a plan may cut the response off, the guard records what has passed in [`Seen`]. The plan
//!    ends the response with that record, and nothing more passes.

use std::{sync::Arc, task::Context};

use bytes::Buf;
use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRAILER},
};
use http_body::{Body, Frame};

use super::{current::Entered, grpc};
use crate::{
    ResponseEnd, ResponseOutcome,
    queue::{Queue, seen::Seen},
};

/// Follows one response and tells its queue how it ended: at an end that it sees, or else when it
/// is dropped.
#[derive(Debug)]
pub(crate) struct EndGuard {
    /// `None` once the end has been told.
    queue: Option<Arc<Queue>>,
    /// True during a poll of the inner future or body, and after a poll that panicked.
    polling: bool,
    /// Whether the request's method excludes content.
    no_content: NoContent,
    /// True if the body is complete at its length. Over HTTP/2, announced trailers may follow.
    ends_at_length: bool,
    status: Option<StatusCode>,
    /// The status of a gRPC call, UNKNOWN until the call has given one. `None` for other
    /// responses.
    grpc_status: Option<u32>,
    body_bytes: u64,
    owed: Owed,
}

/// Which responses have no content because of the request's method.
#[derive(Clone, Copy, Debug)]
enum NoContent {
    ByStatus,
    Head,
    Connect,
}

/// What the body still has to give, as far as is known.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Nothing,
    /// Data, until this many bytes have passed in all.
    Bytes(u64),
    /// More, until the body reports its end.
    Unknown,
}

impl EndGuard {
    #[inline]
    pub(crate) fn new(queue: Arc<Queue>, method: &Method, version: Version) -> Self {
        let no_content = match *method {
            Method::HEAD => NoContent::Head,
            Method::CONNECT => NoContent::Connect,
            _ => NoContent::ByStatus,
        };
        Self {
            queue: Some(queue),
            polling: false,
            no_content,
            ends_at_length: version < Version::HTTP_2,
            status: None,
            grpc_status: None,
            body_bytes: 0,
            owed: Owed::Unknown,
        }
    }

    /// `None` once the end has been told.
    #[inline]
    pub(crate) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }

    /// Makes the queue the thread's current one while the inner service runs.
    #[inline]
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        Entered::new(&mut self.queue)
    }

    /// Records that the handler or the body is about to be polled. Returns false if the response
    /// has been cut off. It must not be polled then.
    #[inline]
    pub(crate) fn before_poll(&mut self) -> bool {
        if self.seen().is_some_and(Seen::is_cut_off) {
            return false;
        }
        self.polling = true;
        true
    }

    /// Records that the poll has returned.
    #[inline]
    pub(crate) fn after_poll(&mut self) {
        self.polling = false; // it stays true after a panic
    }

    /// Records that the poll is pending. Returns false if the response has been cut off.
    #[inline]
    pub(crate) fn waits(&self, cx: &Context<'_>) -> bool {
        self.seen().is_none_or(|seen| seen.wait(cx.waker()))
    }

    /// Returns `None` if the response is not followed, or has ended.
    #[inline]
    fn seen(&self) -> Option<&Seen> {
        self.queue.as_ref()?.seen()
    }

    /// Records what has passed, for a plan. Returns false if the response has been cut off.
    /// Nothing may pass then.
    #[inline]
    fn note(&self) -> bool {
        self.seen()
            .is_none_or(|seen| seen.note(self.outcome(self.dropped())))
    }

    /// Records the response head. `body` has not been polled. Returns false if the response has
    /// been cut off.
    #[inline]
    pub(crate) fn response<B: Body>(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &B,
    ) -> bool {
        self.status = Some(status);
        let is_http2 = !self.ends_at_length;
        self.ends_at_length = self.ends_at_length || !headers.contains_key(TRAILER);
        self.owed = if self.no_content.holds(status) || body.is_end_stream() {
            self.grpc_status = grpc::status(headers);
            Owed::Nothing
        } else {
            let exact = body.size_hint().exact();
            // Most bodies have an exact length, and a header look-up costs more than asking for
            // it. gRPC uses HTTP/2.
            if is_http2 || exact.is_none() {
                self.grpc_status = grpc::is_call(headers).then_some(grpc::UNKNOWN);
            }
            let length = exact.or_else(|| content_length(headers));
            length.map_or(Owed::Unknown, Owed::Bytes)
        };
        self.note()
    }

    /// Ends the response: the inner service returned an error.
    pub(crate) fn service_failed(&mut self) -> bool {
        self.end(ResponseEnd::ServiceFailed)
    }

    /// Records `frame`, which `body` has just returned.
    #[inline]
    pub(crate) fn frame<B: Body>(&mut self, frame: &Frame<B::Data>, body: &B) -> bool {
        if let Some(data) = frame.data_ref() {
            self.body_bytes = self.body_bytes.saturating_add(data.remaining() as u64);
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.grpc_status = grpc::status(trailers).or(self.grpc_status);
            self.owed = Owed::Nothing;
        } else if body.is_end_stream() {
            self.owed = Owed::Nothing;
        }
        self.note()
    }

    /// Ends the response: the body returned `None`. If it is shorter than its declared length, it
    /// failed, as the server must break off the response.
    #[inline]
    pub(crate) fn body_ended(&mut self) -> bool {
        self.end(match self.owed {
            Owed::Bytes(length) if self.body_bytes < length => ResponseEnd::BodyFailed,
            _ => ResponseEnd::Completed,
        })
    }

    /// Ends the response: the body returned an error.
    pub(crate) fn body_failed(&mut self) -> bool {
        self.end(ResponseEnd::BodyFailed)
    }

    fn dropped(&self) -> ResponseEnd {
        if self.status.is_some() && self.nothing_owed() {
            ResponseEnd::Completed
        } else if self.polling || std::thread::panicking() {
            // `polling` is still true if an outer layer caught the panic and drops this later.
            ResponseEnd::Panicked
        } else if self.status.is_some() {
            ResponseEnd::Aborted
        } else {
            ResponseEnd::Cancelled
        }
    }

    #[inline]
    fn nothing_owed(&self) -> bool {
        match self.owed {
            Owed::Nothing => true,
            Owed::Bytes(length) => self.ends_at_length && self.body_bytes >= length,
            Owed::Unknown => false,
        }
    }

    /// Ends the response. Returns false if it has been cut off, as then the plan ends it.
    #[inline]
    fn end(&mut self, end: ResponseEnd) -> bool {
        let Some(queue) = self.queue.take() else {
            return true;
        };
        let ends = queue.seen().is_none_or(Seen::note_end);
        if ends {
            queue.end(self.outcome(end));
        }
        ends
    }

    #[inline]
    fn outcome(&self, end: ResponseEnd) -> ResponseOutcome {
        ResponseOutcome {
            body_bytes: self.body_bytes,
            grpc_status: self.grpc_status,
            ..ResponseOutcome::new(end, self.status)
        }
    }
}

impl Drop for EndGuard {
    #[inline]
    fn drop(&mut self) {
        if self.queue.is_some() {
            self.end(self.dropped());
        }
    }
}

impl NoContent {
    /// Returns true if the response has no content by RFC 9110, section 6.4.1.
    #[inline]
    fn holds(self, status: StatusCode) -> bool {
        match self {
            Self::Head => true,
            Self::Connect if status.is_success() => true,
            _ => {
                status.is_informational()
                    || status == StatusCode::NO_CONTENT
                    || status == StatusCode::NOT_MODIFIED
            }
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
