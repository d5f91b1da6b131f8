//! Jobs: tasks that can leave the process, as they are a name and a payload (feature `jobs`).
//!
//! This room stands on top of all others, and none of them knows of it. The settings' extensions
//! hold what a runner knows of jobs, and a queue's extensions what a request knows. A shutdown
//! calls a hook.
//!
//! `add` decides where a job goes: to its request's queue or into a store. `run` is the worker's
//! side. `spill` moves jobs from the queue to the store when the runner shuts down.

mod add;
mod add_error;
#[cfg(feature = "apalis")]
mod apalis;
mod context;
mod id;
mod job;
mod job_report;
mod job_side;
#[cfg(feature = "apalis")]
mod poll_interval;
mod registered;
mod run;
mod run_error;
mod settings;
mod span;
mod spill;
mod spilling_job;
mod store;
mod stored;
mod work;

pub use self::{
    add_error::{AddJobError, AddJobErrorKind},
    context::JobContext,
    id::{JobId, ParseJobIdError},
    job::Job,
    job_report::{JobEnd, JobReport},
    registered::Jobs,
    run::RunJob,
    run_error::RunJobError,
    store::{JobStore, PushFuture},
    stored::{JobRequest, StoredJob},
};
#[cfg(feature = "apalis")]
pub use self::{apalis::ApalisStore, poll_interval::PollInterval};
