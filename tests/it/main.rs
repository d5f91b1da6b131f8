//! The promises, each as tests. One binary: `cargo test --test it order` runs the tests of one file.
//!
//! | Promise of the README | Tested in |
//! |---|---|
//! | 1 Once | `ends`, `attach`, `spill`; conformance `matrix`, `property` |
//! | 2 Not before | `order`; conformance `property` |
//! | 3 Never on the connection | `connection`, `isolation`, `order`, `cost`, `blocking` |
//! | 4 Nothing disappears | `hold`, `outbox`, `shield`, `cancel`, `cut_off`, `keep_open`, `limits`, `max_pending`, `shutdown`, `serve`, `listed`, `runtime`, `spill`, `metrics`, `testing`; `observe`; conformance `chaos` |
//! | 5 Isolation | `isolation`, `wakers`, `failure`, `blocking`, `worker`; `observe` (a subscriber that panics); conformance `chaos` |
//! | 6 Order | `order`, `extract`, `attach`; conformance `property` |
//! | 7 Late is fine | `order`, `attach`, `jobs`; conformance `matrix` (upgrades), `property` |
//! | 8 Transparent | `transparent`; conformance `property` |
//! | 9 No panic of ours | `no_panic`, `no_timer`, `runtime`, `blocking`, `ends`, `isolation`, `wakers`, `shutdown`, `spill`, `task`; `observe` |
//! | 10 Honest words | `ends`, `times`; `observe` (`times`, under a subscriber); conformance `matrix`, `grpc` |
//! | 11 Any runtime | `runtimes`, `runtime`, `spill` |
//!
//! `observe` is the other binary, `conformance` a package. What users call is in `adding`, `current`,
//! `extract`, `task`, `shield`, `surroundings`, `testing`, `dashboard`, `jobs`, `worker` and `apalis`.

mod adding;
#[cfg(feature = "apalis")]
mod apalis;
mod attach;
mod blocking;
mod cancel;
mod connection;
mod cost;
mod current;
mod cut_off;
#[cfg(feature = "dashboard")]
mod dashboard;
mod ends;
mod extract;
mod failure;
mod hold;
mod isolation;
#[cfg(feature = "jobs")]
mod job_support;
#[cfg(feature = "jobs")]
mod jobs;
mod keep_open;
mod limits;
mod listed;
mod max_pending;
#[cfg(feature = "metrics")]
mod metrics;
mod no_panic;
mod no_timer;
mod order;
#[cfg(feature = "jobs")]
mod outbox;
mod runtime;
mod runtimes;
mod serve;
mod shield;
mod shutdown;
#[cfg(feature = "jobs")]
mod spill;
mod support;
mod surroundings;
mod task;
mod testing;
mod times;
mod transparent;
mod wakers;
#[cfg(feature = "jobs")]
mod worker;
