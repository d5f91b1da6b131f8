#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attached;
#[cfg(feature = "axum")]
mod axum;
mod batch;
mod body;
mod contain;
mod context;
mod end;
mod execution;
mod future;
mod id;
mod layer;
mod list;
mod missing_layer;
mod outcome;
mod output;
mod queue;
mod report;
mod runner;
mod service;
mod stats;
mod sync;
mod task;
mod tasks;
mod work;

pub use self::{
    body::ResponseBody,
    context::TaskContext,
    end::TaskEnd,
    future::ResponseFuture,
    id::TaskId,
    layer::BackgroundTasksLayer,
    missing_layer::MissingLayer,
    outcome::{ResponseEnd, ResponseOutcome},
    output::{BoxError, IntoTask, TaskOutput, TaskResult},
    runner::Runner,
    service::BackgroundTasksService,
    stats::Stats,
    task::Task,
    tasks::BackgroundTasks,
};
