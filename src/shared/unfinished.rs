//! [`Unfinished`]: what shutdowns did not finish.

use std::collections::BTreeMap;
#[cfg(feature = "jobs")]
use std::fmt;

use crate::observe::{
    info::{TaskInfo, in_order},
    open_connection::OpenConnection,
    open_request::OpenRequest,
};
#[cfg(feature = "jobs")]
use crate::util::counted::counted;

#[derive(Clone, Debug, Default)]
pub(crate) struct Unfinished {
    pub(crate) aborted: Vec<TaskInfo>,
    /// Tasks that were added after the runner closed: the first [`NAMED`] of them.
    pub(crate) rejected: Vec<TaskInfo>,
    /// The connections that were still kept open at the end, by number.
    pub(crate) connections: BTreeMap<u64, OpenConnection>,
    /// The requests that were cut off.
    pub(crate) requests: Vec<OpenRequest>,
    /// True if the server was dropped before it stopped, although the runner knew of no open
    /// request.
    pub(crate) is_server_cut_off: bool,
    /// The jobs handed to a store.
    #[cfg(feature = "jobs")]
    pub(crate) spilled: Vec<TaskInfo>,
    /// Why the store refused a job: the error of the first refusal.
    #[cfg(feature = "jobs")]
    pub(crate) spill_error: Option<String>,
}

/// How many rejected tasks are kept.
const NAMED: usize = 1_000;

impl Unfinished {
    /// Records a task that was added after the runner closed, if there is room.
    pub(crate) fn reject(&mut self, task: TaskInfo) {
        if self.rejected.len() < NAMED {
            self.rejected.push(task);
        }
    }

    pub(crate) fn in_order(self) -> Self {
        Self {
            aborted: in_order(self.aborted),
            rejected: in_order(self.rejected),
            connections: self.connections,
            requests: self.requests,
            is_server_cut_off: self.is_server_cut_off,
            #[cfg(feature = "jobs")]
            spilled: in_order(self.spilled),
            #[cfg(feature = "jobs")]
            spill_error: self.spill_error,
        }
    }

    /// Writes the lines about jobs of a [`ShutdownReport`](crate::ShutdownReport).
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
