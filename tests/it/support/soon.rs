//! How long tests wait. The other test binaries have this file too.

use std::time::Duration;

/// A test that waits longer than this is broken, not slow.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("did not happen")
}
