//! How long tests wait. The other test binaries have this file too.

use std::time::Duration;

/// Waits for something that must happen; a test that waits longer than this is broken, not slow.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("did not happen")
}
