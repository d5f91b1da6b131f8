//! The example against the real engines: as processes of their own, over HTTP, killed and starved.
//!
//! SQLite always; Postgres and Redis where `.ci/engines` has started them, and otherwise skipped, loudly.

mod backlog;
mod board;
mod crash;
mod deploy;
mod engines;
mod http;
mod options;
mod outage;
mod outbox;
mod process;
mod retry;
mod scene;
mod throughput;
mod wake;

/// A line that is seen though the test passes; in one write, as tests run side by side.
macro_rules! say {
    ($($text:tt)*) => {{
        let line = format!($($text)*) + "\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }};
}
pub(crate) use say;

/// Makes a test for each engine of each function that takes one.
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod sqlite { $(#[test] fn $test() { crate::engines::on_sqlite(super::$test); })+ }
        mod postgres { $(#[test] fn $test() { crate::engines::on_postgres(stringify!($test), super::$test); })+ }
        mod redis { $(#[test] fn $test() { crate::engines::on_redis(stringify!($test), super::$test); })+ }
    };
}
pub(crate) use on_each_engine;
