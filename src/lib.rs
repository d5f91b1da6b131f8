#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    all(test, background_tasks_loom),
    allow(
        dead_code,
        unused_imports,
        reason = "the models run no threads of Tokio's"
    )
)]

mod add_error;
mod admission;
mod attached;
#[cfg(feature = "axum")]
mod axum;
mod batch;
mod body;
mod builder;
mod contain;
mod context;
mod crew;
mod current;
mod current_queue;
mod drive;
mod end;
mod execution;
mod future;
mod id;
mod info;
#[cfg(feature = "jobs")]
mod jobs;
mod lanes;
mod layer;
mod list;
mod metrics;
mod missing_layer;
#[cfg(all(test, background_tasks_loom))]
mod models;
mod outcome;
mod output;
mod overdue;
mod plain;
mod pool;
mod queue;
mod registry;
mod report;
mod request_line;
mod runner;
mod sent;
mod service;
mod shard;
mod shutdown;
mod slice;
mod slow_poll;
mod span;
mod start;
mod stats;
mod sync;
mod task;
mod tasks;
mod waiting;
mod work;

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use self::builder::SpanRelation;
#[cfg(feature = "apalis")]
#[cfg_attr(docsrs, doc(cfg(feature = "apalis")))]
pub use self::jobs::ApalisStore;
#[cfg(feature = "jobs")]
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
pub use self::jobs::{
    AddJobError, AddJobErrorKind, Job, JobContext, JobId, JobRequest, JobStore, Jobs,
    ParseJobIdError, PushFuture, RunJob, RunJobError, StoredJob,
};
pub use self::{
    add_error::AddTaskError,
    body::ResponseBody,
    builder::{OnFailure, Order, RunnerBuilder},
    context::TaskContext,
    end::TaskEnd,
    future::ResponseFuture,
    id::TaskId,
    info::{TaskInfo, TaskKind, TaskState},
    layer::BackgroundTasksLayer,
    missing_layer::MissingLayer,
    outcome::{ResponseEnd, ResponseOutcome},
    output::{BoxError, IntoTask, TaskOutput, TaskResult},
    report::TaskReport,
    runner::Runner,
    service::BackgroundTasksService,
    shutdown::ShutdownReport,
    stats::Stats,
    task::Task,
    tasks::BackgroundTasks,
};
