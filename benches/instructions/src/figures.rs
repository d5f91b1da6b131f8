//! What was counted, by side.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::counted::REQUESTS;

/// Instructions a request.
#[derive(Default)]
pub(crate) struct Figures(HashMap<String, f64>);

impl Figures {
    /// Has gungraun count all sides, and prints each as it comes.
    pub(crate) fn count() -> Self {
        let mut gungraun = Command::new(env::current_exe().unwrap())
            .args(["--bench", "--output-format=json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut figures = Self::default();
        println!("instructions of a request, whole");
        for line in BufReader::new(gungraun.stdout.take().unwrap()).lines() {
            figures.add(&line.unwrap());
        }
        let status = gungraun.wait().unwrap();
        assert!(status.success(), "gungraun failed: {status}");
        println!();
        figures
    }

    /// A line is one side's summary.
    fn add(&mut self, line: &str) {
        let summary: Value = serde_json::from_str(line).unwrap();
        let side = summary["id"].as_str().unwrap();
        let instructions = summary
            .pointer("/profiles/0/data/total/metrics/Ir/values/new")
            .and_then(Value::as_f64)
            .expect("a count of instructions: has gungraun's summary another form?");
        let of_request = instructions / REQUESTS as f64;
        println!("{side:<72} {of_request:>8.0}");
        self.0.insert(side.to_owned(), of_request);
    }

    /// `side` over `other`.
    pub(crate) fn ratio(&self, side: &str, other: &str) -> f64 {
        self.0[side] / self.0[other]
    }
}
