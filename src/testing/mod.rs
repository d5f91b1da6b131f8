//! Helpers for tests of handlers. [`guide::testing`](crate::guide::testing) shows four ways to
//! test.
// This room uses `http`, `runner`, `background_tasks` and below. Nothing uses it.

#[doc(hidden)]
pub mod added;
mod finish;

pub use self::finish::finish;
