//! The promises, each as tests. One binary: `cargo test --test it order` runs the tests of one file.
//!
//! | Promise of the design | Tested in |
//! |---|---|
//! | 1 Once | `ends`, `attach`, `spill`; conformance `matrix`, `property` |
//! | 2 Not before | `order`; conformance `property` |
//! | 3 Never on the connection | `connection`, `isolation`, `order` |
//! | 4 Nothing disappears | `cancel`, `limits`, `shutdown`, `runtime`, `spill`, `metrics`; `observe`; conformance `chaos` |
//! | 5 Isolation | `isolation`, `failure`, `worker`; `observe` (a subscriber that panics); conformance `chaos` |
//! | 6 Order | `order`, `extract`, `attach`, `reuse`; conformance `property` |
//! | 7 Late is fine | `order`, `attach`, `jobs`; conformance `matrix` (upgrades), `property` |
//! | 8 Transparent | `transparent`; conformance `property` |
//! | 9 No panic of ours | `runtime`, `ends`, `isolation`, `shutdown`, `spill`, `task`; `observe` |
//! | 10 Honest words | `ends`; conformance `matrix`, `grpc` |
//! | 11 Any runtime | `runtime`, `reuse`, `spill` |
//!
//! `observe` is the other binary, `conformance` a package. What users call is in `adding`, `extract`, `task`, `jobs`, `worker` and
//! `apalis`.

mod adding;
#[cfg(feature = "apalis")]
mod apalis;
mod attach;
mod cancel;
mod connection;
mod ends;
mod extract;
mod failure;
mod faults;
mod isolation;
#[cfg(feature = "jobs")]
mod job_support;
#[cfg(feature = "jobs")]
mod jobs;
mod limits;
#[cfg(feature = "metrics")]
mod metrics;
mod order;
mod reuse;
mod runtime;
mod shutdown;
#[cfg(feature = "jobs")]
mod spill;
mod support;
mod task;
mod transparent;
#[cfg(feature = "jobs")]
mod worker;
