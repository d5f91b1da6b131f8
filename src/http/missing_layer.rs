//! [`MissingLayer`], and [`BackgroundTasks::from_extensions`], which returns it.

#[cfg(all(feature = "axum", feature = "tracing"))]
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use std::{error::Error, fmt};

use http::Extensions;

use crate::BackgroundTasks;
#[cfg(all(feature = "axum", feature = "tracing"))]
use crate::util::contain::contain;

/// The request has no queue: it did not come through
/// [`BackgroundTasksLayer`](crate::BackgroundTasksLayer).
///
/// As an axum rejection this is a 500 without details. An error in the log names the path, once
/// for each of the first 64 paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLayer;

impl BackgroundTasks {
    /// Finds the request's queue where there is no extractor: in middleware, hyper services or
    /// tonic.
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
            "no background task queue in the request: is `BackgroundTasksLayer` applied \
             (`router.layer(runner.layer())`, behind the routes it is for), and does no middleware \
             spawn the handler and drop the request's extensions?",
        )
    }
}

impl Error for MissingLayer {}

/// How many paths are logged. A scanner could request any number of them.
#[cfg(all(feature = "axum", feature = "tracing"))]
const LOGGED_PATHS: usize = 64;

#[cfg(feature = "axum")]
impl MissingLayer {
    /// Logs an error once for each path.
    pub(crate) fn log_once(self, path: &str) {
        #[cfg(feature = "tracing")]
        if is_new(path) {
            let _ = contain(|| {
                tracing::error!(
                    target: "tower_background_tasks",
                    { url.path = path },
                    "{self}"
                );
            });
        }
        #[cfg(not(feature = "tracing"))]
        let _ = path;
    }
}

#[cfg(all(feature = "axum", feature = "tracing"))]
fn is_new(path: &str) -> bool {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    logged.len() < LOGGED_PATHS && logged.insert(path.to_owned())
}
