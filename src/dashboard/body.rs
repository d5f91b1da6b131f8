//! [`DashboardBody`]: the body of the dashboard's responses.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::feed::Events;

/// The body of a response of [`Dashboard`](super::Dashboard): either one piece of data, or a
/// stream of events that ends when the runner shuts down.
pub struct DashboardBody(Kind);

enum Kind {
    Whole(Bytes),
    Events(Events),
}

impl DashboardBody {
    pub(super) fn empty() -> Self {
        Bytes::new().into()
    }

    pub(super) fn events(events: Events) -> Self {
        Self(Kind::Events(events))
    }
}

impl From<Bytes> for DashboardBody {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }
}

impl Body for DashboardBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut self.0 {
            Kind::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Kind::Events(events) => ready!(events.poll_next(cx)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Kind::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Events(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for DashboardBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashboardBody").finish_non_exhaustive()
    }
}
