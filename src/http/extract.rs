//! [`BackgroundTasks`] as an axum extractor and as a part of a response.

use std::convert::Infallible;

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use http::{StatusCode, request::Parts};

use super::{attach, missing_layer::MissingLayer};
use crate::{AddTaskError, BackgroundTasks, ShieldAborted};

/// Extracts the request's queue, even if middleware has rebuilt the request without its
/// extensions.
///
/// The rejection is a 500 without details. An error in the log names the path and the remedy.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> FromRequestParts<S> for BackgroundTasks {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, MissingLayer> {
        let found = find(parts);
        found.inspect_err(|missing| missing.log_once(parts.uri.path()))
    }
}

/// Finds the queue in the extensions, or else as the current queue of this thread.
fn find(parts: &Parts) -> Result<BackgroundTasks, MissingLayer> {
    let found = BackgroundTasks::from_extensions(&parts.extensions);
    found.or_else(|missing| BackgroundTasks::current().ok_or(missing))
}

/// Extracts the request's queue, or `None` if the request did not come through
/// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> OptionalFromRequestParts<S> for BackgroundTasks {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(find(parts).ok())
    }
}

/// `(tasks, "body")`: the tasks of a stand-alone queue run behind the request's own.
///
/// The tasks join the request's queue when the response is made, so middleware may replace that
/// response. A response that is made outside its request's handler, such as in a spawned task,
/// carries the tasks. [`BackgroundTasksLayer`](crate::BackgroundTasksLayer) or
/// [`Runner::attach`](crate::Runner::attach) then takes them. If neither does, they are dropped,
/// and a warning names them. Returning the request's own queue changes nothing.
///
/// The tasks come before the body, as all response parts do in axum. For `("body", tasks)`, the
/// compiler reports that `&str` is not `IntoResponseParts`.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponseParts for BackgroundTasks {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        match BackgroundTasks::current() {
            Some(own) => own.queue().merge(self.queue()),
            None => attach::attach(response.extensions_mut(), self),
        }
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

/// A 500 without details, as the log has them.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for MissingLayer {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, "internal server error").into_response()
    }
}

/// A 503.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for ShieldAborted {
    fn into_response(self) -> Response {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "interrupted, try again later",
        )
            .into_response()
    }
}
