//! A process of the example.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

pub(crate) struct Process {
    command: Command,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its output goes to `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let child = spawn(&mut command, log);
        Self {
            command,
            child,
            log: log.to_owned(),
        }
    }

    /// SIGKILL, and the same again.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.child = spawn(&mut self.command, &self.log);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, and waits until it has ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.expect("there is a `kill`").success());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command, log: &Path) -> Child {
    let mut options = OpenOptions::new();
    let log: File = options.create(true).append(true).open(log).expect("a log");
    command
        .stdout(log.try_clone().expect("another handle"))
        .stderr(log);
    command.spawn().expect("the example can be run")
}
