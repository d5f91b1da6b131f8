#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
mod background_tasks;
#[cfg(feature = "dashboard")]
mod dashboard;
mod executor;
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

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/context.md")]
pub mod context {}

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/observability.md")]
pub mod observability {}

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/shutdown.md")]
pub mod shutdown {}

#[cfg(feature = "dashboard")]
#[cfg_attr(docsrs, doc(cfg(feature = "dashboard")))]
pub use self::dashboard::{Dashboard, DashboardBody};
#[cfg(feature = "jobs")]
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
pub use self::jobs::{
    AddJobError, AddJobErrorKind, Job, JobContext, JobEnd, JobId, JobReport, JobRequest, JobStore,
    Jobs, ParseJobIdError, PushFuture, RunJob, RunJobError, StoredJob,
};
#[cfg(feature = "apalis")]
#[cfg_attr(docsrs, doc(cfg(feature = "apalis")))]
pub use self::jobs::{ApalisStore, PollInterval};
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
