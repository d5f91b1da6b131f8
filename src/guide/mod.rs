//! The pages for people: from FastAPI to production.
//!
//! - [`from_fastapi`]: what takes the place of what you know.
//! - [`when`]: when a task runs, after a commit, within limits, in middleware.
//! - [`testing`]: four ways to test a handler, without a sleep.
//! - [`shutdown`]: what happens at SIGTERM, and what to set in Kubernetes, docker and systemd.
//! - [`observability`]: the log, traces, metrics, the page.
//! - [`context`]: a tenant, a request id, a Sentry hub around each task.
//! - [`jobs`]: tasks that outlive the process, and jobs in the order's own transaction.
//! - [`performance`]: what it costs, and how that was measured.

#[doc = include_str!("../../docs/from_fastapi.md")]
pub mod from_fastapi {}

#[doc = include_str!("../../docs/when.md")]
pub mod when {}

#[doc = include_str!("../../docs/testing.md")]
pub mod testing {}

#[doc = include_str!("../../docs/shutdown.md")]
pub mod shutdown {}

#[doc = include_str!("../../docs/observability.md")]
pub mod observability {}

#[doc = include_str!("../../docs/context.md")]
pub mod context {}

// Its links need their features.
#[cfg_attr(
    not(all(feature = "apalis", feature = "tracing")),
    allow(rustdoc::broken_intra_doc_links)
)]
#[doc = include_str!("../../docs/jobs.md")]
pub mod jobs {}

#[doc = include_str!("../../docs/performance.md")]
pub mod performance {}
