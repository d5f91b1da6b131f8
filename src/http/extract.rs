//! [`BackgroundTasks`] as an axum extractor, and as a part of a response.

use std::convert::Infallible;

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use http::{StatusCode, request::Parts};

use super::{attach, missing_layer::MissingLayer};
use crate::{AddTaskError, BackgroundTasks};

/// The request's queue.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> FromRequestParts<S> for BackgroundTasks {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, MissingLayer> {
        Self::from_extensions(&parts.extensions)
    }
}

/// The request's queue, or `None` for a request that did not come through
/// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> OptionalFromRequestParts<S> for BackgroundTasks {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::from_extensions(&parts.extensions).ok())
    }
}

/// `(tasks, "body")`: a stand-alone queue's tasks run behind the request's own.
///
/// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer) or
/// [`Runner::attach`](crate::Runner::attach) takes the tasks off the response. If neither does,
/// they are dropped, and a warning names them. Returning the request's own queue changes nothing.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponseParts for BackgroundTasks {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        attach::attach(response.extensions_mut(), self);
        Ok(response)
    }
}

/// A 503.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for AddTaskError {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, "too busy, try again later").into_response()
    }
}

/// A 500, whose text says what to do.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for MissingLayer {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}
