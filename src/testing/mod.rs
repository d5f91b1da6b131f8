// What tests of handlers use besides the runner itself. A room at the top: it uses `http`, `runner`,
// `background_tasks` and below, and nothing uses it. Its docs are the guide to testing.
#![doc = include_str!("../../docs/testing.md")]

#[doc(hidden)]
pub mod added;
mod finish;

pub use self::finish::finish;
