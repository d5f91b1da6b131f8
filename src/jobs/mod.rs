//! Jobs: tasks that can leave the process, because they are a name and a payload (feature `jobs`).
//!
//! `add` decides where a job goes: to its request's queue, or into a store. `run` is the worker's side. `spill` is the way from
//! the one to the other, when the runner shuts down.

mod add;
mod add_error;
#[cfg(feature = "apalis")]
mod apalis;
mod context;
mod cut;
mod id;
mod job;
mod registered;
mod run;
mod run_error;
mod settings;
mod side;
mod span;
mod spill;
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
pub(crate) use self::{settings::JobSettings, side::JobSide, spill::Spilled};
