#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

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
mod current;
mod end;
mod execution;
mod future;
mod id;
mod info;
mod layer;
mod list;
mod missing_layer;
mod outcome;
mod output;
mod queue;
mod registry;
mod report;
mod runner;
mod service;
mod shutdown;
mod stats;
mod sync;
mod task;
mod tasks;
mod work;

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
