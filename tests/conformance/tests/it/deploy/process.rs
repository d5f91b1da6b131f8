//! [`Process`]: a server of the tests, from outside.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::Kind;
use crate::support::soon;

pub(super) struct Process {
    child: Child,
    told: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

/// What became of it.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) told: String,
}

/// A port that nobody has now.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Process {
    pub(super) async fn start(kind: Kind, port: u16, plan: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("deploy::server_process")
            .env("SERVER", format!("{kind:?}"))
            .env("PORT", port.to_string())
            .env("PLAN", plan)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self {
            child,
            told,
            address: ([127, 0, 0, 1], port).into(),
        };
        process.address = process.line("listening ").await.parse().unwrap();
        process
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a line that begins so. Returns the rest of it.
    pub(super) async fn line(&mut self, begin: &str) -> String {
        soon(async {
            loop {
                let line = self.told.next_line().await.unwrap().expect("it goes on");
                if let Some(rest) = line.strip_prefix(begin) {
                    return rest.to_owned();
                }
            }
        })
        .await
    }

    /// Sends SIGTERM, and waits for the end.
    pub(super) async fn terminate(mut self) -> Ended {
        let pid = self.child.id().expect("it runs").to_string();
        let killed = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        assert!(killed.unwrap().success());
        let mut told = String::new();
        let reading = async {
            while let Some(line) = self.told.next_line().await.unwrap() {
                told += &line;
                told.push('\n');
            }
        };
        soon(reading).await;
        let status = soon(self.child.wait()).await.unwrap();
        Ended { status, told }
    }
}

impl Ended {
    /// The numbers of the line that begins with this word.
    pub(super) fn numbers(&self, word: &str) -> Vec<u64> {
        let line = self.told.lines().find_map(|line| line.strip_prefix(word));
        let numbers = line.unwrap_or_else(|| panic!("no line {word}:\n{}", self.told));
        numbers
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect()
    }
}
