//! Jobs: tasks that can leave the process, because they are a name and a payload (feature `jobs`).
//!
//! This room uses the others, and none of them depends on it. The extensions of the settings hold
//! the runner's job settings. The extensions of a queue hold what a request knows of jobs. A
//! shutdown reaches this room through a hook.
//!
//! `add` decides where a job goes: to its request's queue or into a store. `run` is the worker's
//! side. `spill` moves jobs from the queue to the store when the runner shuts down.

mod add;
mod add_error;
#[cfg(feature = "apalis")]
mod apalis;
#[cfg(feature = "apalis")]
mod apalis_task;
#[cfg(feature = "apalis")]
mod backoff;
mod context;
mod id;
mod job;
mod job_report;
mod job_request;
mod job_side;
#[cfg(feature = "apalis")]
mod poll_interval;
#[cfg(feature = "postgres")]
mod postgres;
mod registered;
#[cfg(feature = "apalis")]
mod retries;
mod run;
mod run_error;
mod settings;
mod span;
mod spill;
mod spilling_job;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod store_error;
mod stored;
mod work;

#[cfg(feature = "postgres")]
pub use self::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
pub use self::{
    add_error::{AddJobError, AddJobErrorKind},
    context::JobContext,
    id::{JobId, ParseJobIdError},
    job::Job,
    job_report::{JobEnd, JobReport},
    job_request::{IntoJob, JobRequest},
    registered::Jobs,
    run::RunJob,
    run_error::RunJobError,
    store::{JobStore, PushFuture},
    store_error::{DuplicateJob, UnsupportedByStore},
    stored::{JobOrigin, StoredJob},
};
#[cfg(feature = "apalis")]
pub use self::{apalis::ApalisStore, backoff::Backoff, poll_interval::PollInterval};
