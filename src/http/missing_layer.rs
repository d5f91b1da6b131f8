//! [`MissingLayer`].

use std::{error::Error, fmt};

/// The request has no queue: it did not come through [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
///
/// As an axum rejection it is a 500 with this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLayer;

impl MissingLayer {
    pub(crate) fn new() -> Self {
        Self
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
