//! Jobs: tasks that can leave the process, because they are a name and a payload (feature `jobs`).
//!
//! It stands on top of all other rooms, none of which knows of it: what a runner is told of jobs is in its settings' extensions, what a
//! request's queue is to know in the queue's, and a shutdown calls a hook.
//!
//! `add` decides where a job goes: to its request's queue, or into a store. `run` is the worker's side. `spill` is the way from
//! the one to the other, when the runner shuts down.

mod add;
mod add_error;
#[cfg(feature = "apalis")]
mod apalis;
mod context;
mod id;
mod job;
mod job_side;
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

#[cfg(feature = "apalis")]
pub use self::apalis::ApalisStore;
pub use self::{
    add_error::{AddJobError, AddJobErrorKind},
    context::JobContext,
    id::{JobId, ParseJobIdError},
    job::Job,
    registered::Jobs,
    run::RunJob,
    run_error::RunJobError,
    store::{JobStore, PushFuture},
    stored::{JobRequest, StoredJob},
};
