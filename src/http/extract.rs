//! [`BackgroundTasks`] as an axum extractor, and as a part of a response.

use std::convert::Infallible;

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use http::{StatusCode, request::Parts};

use super::{attach, missing_layer::MissingLayer};
use crate::{AddTaskError, BackgroundTasks, ShieldAborted};

/// The request's queue, also where middleware has rebuilt the request without its extensions.
///
/// The rejection is a plain 500, and an error in the log that names the path and the remedy.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> FromRequestParts<S> for BackgroundTasks {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, MissingLayer> {
        let found = find(parts);
        found.inspect_err(|missing| missing.log_once(parts.uri.path()))
    }
}

/// In the extensions, or as the queue whose handler runs on this thread.
fn find(parts: &Parts) -> Result<BackgroundTasks, MissingLayer> {
    let found = BackgroundTasks::from_extensions(&parts.extensions);
    found.or_else(|missing| BackgroundTasks::current().ok_or(missing))
}

/// The request's queue, or `None` for a request that did not come through
/// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> OptionalFromRequestParts<S> for BackgroundTasks {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(find(parts).ok())
    }
}

/// `(tasks, "body")`: a stand-alone queue's tasks run behind the request's own.
///
/// They join the request's queue when the response is made, so that middleware may answer with a
/// new one. A response that is made elsewhere than within its request, such as in a spawned task,
/// carries them to [`BackgroundTasksLayer`](crate::BackgroundTasksLayer) or
/// [`Runner::attach`](crate::Runner::attach). If neither takes them, they are dropped, and a warning
/// names them. Returning the request's own queue changes nothing.
///
/// The tasks come before the body, as all parts of a response do in axum. For `("body", tasks)` the
/// compiler says that `&str` is not `IntoResponseParts`.
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

/// A plain 500: the operator is told in the log.
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
