//! How a request's queue is found; and [`MissingLayer`], if there is none.

use std::{error::Error, fmt};

use http::Extensions;

use crate::BackgroundTasks;

/// The request has no queue: it did not come through
/// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
///
/// As an axum rejection it is a 500 with this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLayer;

impl BackgroundTasks {
    /// Finds the request's queue where there is no extractor: in middleware, hyper services, tonic.
    ///
    /// ```
    /// use http::Request;
    /// use tower_background_tasks::{BackgroundTasks, MissingLayer};
    ///
    /// fn handle<B>(request: &Request<B>) -> Result<(), MissingLayer> {
    ///     let tasks = BackgroundTasks::from_extensions(request.extensions())?;
    ///     tasks.add_task(async { println!("after the response") });
    ///     Ok(())
    /// }
    /// # assert!(handle(&Request::new(())).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// This returns an error when the request did not come through
    /// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, MissingLayer> {
        extensions.get().cloned().ok_or(MissingLayer)
    }
}

impl fmt::Display for MissingLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no background task queue in the request: is `BackgroundTasksLayer` applied? \
             (`router.layer(runner.layer())`, behind the routes it is for)",
        )
    }
}

impl Error for MissingLayer {}
