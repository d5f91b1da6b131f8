//! A body that does what a test says.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tower_background_tasks::BoxError;

/// What a scripted body does, poll by poll.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Data(&'static [u8]),
    Trailers,
    /// Trailers with this `grpc-status`.
    GrpcStatus(&'static str),
    Error,
    Panic,
    /// Not ready, and never woken.
    Pending,
}

/// A body that does what its script says, then gives `None`.
#[derive(Debug, Default)]
pub(crate) struct ScriptedBody {
    steps: VecDeque<Step>,
    /// Says so when the last step is done; otherwise never.
    pub(crate) knows_its_end: bool,
    pub(crate) size_hint: SizeHint,
}

impl ScriptedBody {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(Step::Pending) = self.steps.front() {
            return Poll::Pending;
        }
        Poll::Ready(self.steps.pop_front().map(|step| match step {
            Step::Data(data) => Ok(Frame::data(Bytes::from_static(data))),
            Step::Trailers => Ok(Frame::trailers(HeaderMap::new())),
            Step::GrpcStatus(code) => Ok(Frame::trailers(grpc_status(code))),
            Step::Error => Err("the body broke".into()),
            Step::Panic => panic!("on purpose: a body that panics"),
            Step::Pending => unreachable!(),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint
    }
}

pub(crate) fn grpc_status(code: &'static str) -> HeaderMap {
    let code = HeaderValue::from_static(code);
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), code)])
}
