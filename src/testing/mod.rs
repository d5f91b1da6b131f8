//! Helpers for tests of handlers. The guide has four ways to test:
//! [`guide::testing`](crate::guide::testing).
// A room at the top: it uses `http`, `runner`, `background_tasks` and below, and nothing uses it.

#[doc(hidden)]
pub mod added;
mod finish;

pub use self::finish::finish;
