//! [`Unfinished`]: what shutdowns did not finish.

#[cfg(feature = "jobs")]
use std::fmt;

use crate::observe::{
    info::{TaskInfo, in_order},
    open_request::OpenRequest,
};
#[cfg(feature = "jobs")]
use crate::util::counted::counted;

#[derive(Clone, Debug, Default)]
pub(crate) struct Unfinished {
    pub(crate) aborted: Vec<TaskInfo>,
    /// The requests that were cut off.
    pub(crate) requests: Vec<OpenRequest>,
    /// The jobs handed to a store.
    #[cfg(feature = "jobs")]
    pub(crate) spilled: Vec<TaskInfo>,
    /// Why the store did not take the first job that it refused.
    #[cfg(feature = "jobs")]
    pub(crate) spill_error: Option<String>,
}

impl Unfinished {
    pub(crate) fn in_order(self) -> Self {
        Self {
            aborted: in_order(self.aborted),
            requests: self.requests,
            #[cfg(feature = "jobs")]
            spilled: in_order(self.spilled),
            #[cfg(feature = "jobs")]
            spill_error: self.spill_error,
        }
    }

    /// Lines for a [`ShutdownReport`](crate::ShutdownReport).
    #[cfg(feature = "jobs")]
    pub(crate) fn fmt_spilled(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.spilled.is_empty() {
            let jobs = counted(self.spilled.len(), "job");
            writeln!(f, "{jobs} handed to the store:")?;
        }
        for job in &self.spilled {
            writeln!(f, "  {job}")?;
        }
        if let Some(error) = &self.spill_error {
            writeln!(f, "the store did not take all jobs: {error}")?;
        }
        Ok(())
    }
}
