//! The one place that decides whether and how a response ended: [`EndGuard`] gathers the facts. Keeps the promises "once" and "not
//! before".
//!
//! What a server does with a body was read in hyper (`proto/h1/dispatch.rs`, `proto/h2/mod.rs`) and seen on sockets:
//!
//! 1. Most bodies are never polled to `None`. hyper drops a body as soon as it knows that nothing is owed any more: when
//!    `is_end_stream` says so, after the trailers, when `Content-Length` is reached, and unpolled where the response has no
//!    content. Over HTTP/2 it polls on behind the length, but a client may leave there, as it has everything but trailers. So
//!    the drop is an end too, and what has gone by until then says which.
//! 2. A passing last frame is no end: hyper has it, but has not written it. At the drop it has.
//! 3. An end is taken once: the queue leaves the guard with it.

use std::sync::Arc;

use bytes::Buf;
use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRAILER},
};
use http_body::{Body, Frame};

use super::current::Entered;
use crate::{ResponseEnd, queue::Queue};

/// Follows one response and tells its queue how it ended: at an end it sees, or at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct EndGuard {
    /// `None` once the end has been told.
    queue: Option<Arc<Queue>>,
    /// A poll of the inner future or body is under way. Still true afterwards, when that poll panicked.
    polling: bool,
    /// By the request's method, the response will have no content.
    no_content: NoContent,
    /// It has nothing more to give when its length is reached: over HTTP/2, trailers may follow that are announced.
    ends_at_length: bool,
    status: Option<StatusCode>,
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

/// What the response's body still has to give, as far as is known.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Nothing,
    /// So many bytes of data.
    Bytes(u64),
    /// More, until the body says that it has ended.
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
            body_bytes: 0,
            owed: Owed::Unknown,
        }
    }

    /// `None` once the end has been told.
    #[inline]
    pub(crate) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }

    /// Makes the queue the thread's current one, while the service inside runs.
    #[inline]
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        Entered::new(&mut self.queue)
    }

    /// Goes before each poll of the inner future or body.
    #[inline]
    pub(crate) fn before_poll(&mut self) {
        self.polling = true;
    }

    /// Goes after each poll of the inner future or body, unless it panicked.
    #[inline]
    pub(crate) fn after_poll(&mut self) {
        self.polling = false;
    }

    /// The response head is there, and `body` has not been polled.
    #[inline]
    pub(crate) fn response<B: Body>(&mut self, status: StatusCode, headers: &HeaderMap, body: &B) {
        self.status = Some(status);
        self.ends_at_length = self.ends_at_length || !headers.contains_key(TRAILER);
        self.owed = if self.no_content.holds(status) || body.is_end_stream() {
            Owed::Nothing
        } else {
            // The hint first: most bodies have one, and looking a header up costs more.
            let hint = body.size_hint().exact();
            hint.or_else(|| content_length(headers))
                .map_or(Owed::Unknown, Owed::Bytes)
        };
    }

    /// The inner service returned an error.
    pub(crate) fn service_failed(&mut self) {
        self.end(ResponseEnd::ServiceFailed);
    }

    /// `frame` has just come out of `body` and goes by.
    #[inline]
    pub(crate) fn frame<B: Body>(&mut self, frame: &Frame<B::Data>, body: &B) {
        if let Some(data) = frame.data_ref() {
            self.body_bytes = self.body_bytes.saturating_add(data.remaining() as u64);
        }
        if frame.is_trailers() || body.is_end_stream() {
            self.owed = Owed::Nothing;
        }
    }

    /// The body gave `None`. Short of its declared length that is a failure: the server cannot but break off the response.
    #[inline]
    pub(crate) fn body_ended(&mut self) {
        self.end(match self.owed {
            Owed::Bytes(length) if self.body_bytes < length => ResponseEnd::BodyFailed,
            _ => ResponseEnd::Completed,
        });
    }

    /// The body gave an error.
    pub(crate) fn body_failed(&mut self) {
        self.end(ResponseEnd::BodyFailed);
    }

    fn dropped(&self) -> ResponseEnd {
        if self.status.is_some() && self.nothing_owed() {
            ResponseEnd::Completed
        } else if self.polling || std::thread::panicking() {
            // `polling` outlives the unwinding where a layer outside catches panics and drops this later.
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

    #[inline]
    fn end(&mut self, end: ResponseEnd) {
        if let Some(queue) = self.queue.take() {
            queue.end(end, self.status, self.body_bytes);
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
    /// RFC 9110, section 6.4.1.
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
