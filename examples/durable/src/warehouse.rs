//! [`Warehouse`]: the state that the jobs run with.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    process,
    sync::Arc,
};

use tower_background_tasks::JobContext;

/// Ships orders: a line in a log for each, which survives the process, and which any number of processes may share.
#[derive(Clone, Debug)]
pub struct Warehouse {
    log: Arc<File>,
}

impl Warehouse {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { log: Arc::new(log) })
    }

    pub(crate) fn ship(&self, number: u64, cx: &JobContext) -> io::Result<()> {
        let (id, attempt, process) = (cx.id(), cx.attempt(), process::id());
        let line = format!("{number} job {id} attempt {attempt} process {process}\n");
        // One write, so that the lines of several processes do not mix.
        (&*self.log).write_all(line.as_bytes())
    }
}
