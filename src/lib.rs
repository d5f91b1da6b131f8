//! Background tasks for Tower's HTTP servers: they run after the response.
//!
//! A [`Runner`] gives a service its [layer](Runner::layer). The layer gives each request a queue,
//! [`BackgroundTasks`], and hands the queue's tasks to the runner when the response has ended.
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use axum::{Router, routing::post};
//! use tower_background_tasks::{BackgroundTasks, Runner};
//!
//! let runner = Runner::new();
//! let app: Router = Router::new()
//!     .route("/orders", post(async |tasks: BackgroundTasks| {
//!         tasks.add_task(async { println!("receipt sent") });
//!         "ordered"
//!     }))
//!     .layer(runner.layer()); // the last layer: the outermost
//! # drop(app);
//! # }
//! ```
//!
//! [`Runner::serve`] runs the server until SIGTERM or Ctrl-C, and drains requests and tasks.
//!
//! # Where to look
//!
//! | To | See |
//! |---|---|
//! | add tasks | [`BackgroundTasks`] |
//! | name, limit or condition a task | [`Task`] |
//! | set limits, order, timeouts, observers | [`RunnerBuilder`] |
//! | know how the response went | [`ResponseOutcome`], [`TaskContext`] |
//! | know what became of a task | [`TaskEnd`], [`Runner::stats`] |
//! | wait for a commit; outlive the client | [`BackgroundTasks::hold`], [`BackgroundTasks::shield`] |
//! | test a handler | [`testing`], [`assert_added!`] |
//! | read on | [`guide`] |
//!
//! # Features
//!
//! `axum`, `signal` and `tracing` are on by default. `metrics` counts through the `metrics` facade.
//! `dashboard` is a live page. `jobs`, `apalis`, `postgres` and `sqlite` are for tasks that outlive
//! the process.

#![cfg_attr(docsrs, feature(doc_cfg))]
mod background_tasks;
#[cfg(feature = "dashboard")]
mod dashboard;
mod executor;
pub mod guide;
mod held;
mod http;
#[cfg(feature = "jobs")]
mod jobs;
mod keep_open;
#[cfg(all(test, background_tasks_loom))]
#[path = "../tests/loom/mod.rs"]
mod loom_tests;
mod observe;
mod outcome;
mod queue;
mod runner;
mod shared;
mod task;
pub mod testing;
mod util;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "dashboard")]
#[cfg_attr(docsrs, doc(cfg(feature = "dashboard")))]
pub use self::dashboard::{Dashboard, DashboardBody};
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use self::jobs::PostgresStore;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use self::jobs::SqliteStore;
#[cfg(feature = "jobs")]
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
pub use self::jobs::{
    AddJobError, AddJobErrorKind, DuplicateJob, IntoJob, Job, JobContext, JobEnd, JobId, JobOrigin,
    JobReport, JobRequest, JobStore, Jobs, ParseJobIdError, PushFuture, RunJob, RunJobError,
    StoredJob, UnsupportedByStore,
};
#[cfg(feature = "apalis")]
#[cfg_attr(docsrs, doc(cfg(feature = "apalis")))]
pub use self::jobs::{ApalisStore, Backoff, PollInterval};
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use self::observe::span::SpanRelation;
pub use self::{
    background_tasks::BackgroundTasks,
    held::Held,
    http::body::ResponseBody,
    http::detached::{DetachedFuture, DetachedLayer, DetachedService},
    http::future::ResponseFuture,
    http::layer::BackgroundTasksLayer,
    http::missing_layer::MissingLayer,
    http::service::BackgroundTasksService,
    http::shield::{Shield, ShieldAborted},
    keep_open::KeepOpen,
    observe::info::{TaskInfo, TaskState},
    observe::limit_use::LimitUse,
    observe::open_connection::OpenConnection,
    observe::open_request::OpenRequest,
    observe::report::TaskReport,
    outcome::{ResponseEnd, ResponseOutcome},
    runner::Runner,
    runner::builder::RunnerBuilder,
    runner::idle::Idle,
    runner::serve::{Serve, ShutdownSignal},
    runner::shutdown::ShutdownReport,
    shared::settings::{OnFailure, Order},
    shared::stats::Stats,
    task::Task,
    task::add_error::AddTaskError,
    task::around::{Next, Ran},
    task::context::TaskContext,
    task::end::{SkipReason, TaskEnd},
    task::id::TaskId,
    task::into_task::IntoTask,
    task::kind::TaskKind,
    task::output::{BoxError, TaskOutput, TaskResult},
    task::request_info::RequestInfo,
    util::panic::{TaskPanic, install_panic_hook},
};
