//! Jobs and stores for tests.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tower_background_tasks::{
    AddJobError, BackgroundTasks, Job, JobContext, JobStore, Jobs, PushFuture, StoredJob,
    TaskResult,
};

use crate::support::Log;

/// Writes what it does to a [`Log`], its state.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) text: String,
}

impl Job for Note {
    const NAME: &'static str = "note";
    type State = Log;

    async fn run(self, log: Log, cx: JobContext) -> TaskResult {
        match &*self.text {
            "fail" => return Err("on purpose".into()),
            "panic" => panic!("on purpose: a job"),
            _ => {}
        }
        log.write(self.text.clone());
        if self.text == "stuck" {
            cx.task().unwrap().shutting_down().await;
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

pub(crate) fn note(text: &str) -> Note {
    Note { text: text.into() }
}

pub(crate) fn notes(log: &Log) -> Jobs<Log> {
    Jobs::new(log.clone()).register::<Note>()
}

/// The same name as [`Note`], another type.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Impostor;

impl Job for Impostor {
    const NAME: &'static str = "note";
    type State = Log;

    async fn run(self, _: Log, _: JobContext) -> TaskResult {
        Ok(())
    }
}

/// Keeps jobs in memory, as its mood is.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) jobs: Mutex<Vec<StoredJob>>,
    mood: Mutex<Mood>,
    asked: Notify,
}

#[derive(Clone, Default)]
pub(crate) enum Mood {
    #[default]
    Takes,
    Fails,
    Panics,
    NeverAnswers,
    /// Takes each after this time.
    Slow(Duration),
    /// Refuses the job with this text, and takes others.
    FailsFor(&'static str),
}

impl Store {
    pub(crate) fn new(mood: Mood) -> Arc<Self> {
        let store = Self::default();
        store.set(mood);
        Arc::new(store)
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Waits until a push is under way.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let jobs = self.jobs.lock().unwrap();
        jobs.iter().map(text_of).collect()
    }
}

fn text_of(job: &StoredJob) -> String {
    let note: Note = serde_json::from_str(job.payload()).unwrap();
    note.text
}

impl JobStore for Store {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        let mood = self.mood.lock().unwrap().clone();
        Box::pin(async move {
            self.asked.notify_one();
            match mood {
                Mood::Fails => return Err("the store is down".into()),
                Mood::Panics => panic!("on purpose: a store"),
                Mood::NeverAnswers => std::future::pending().await,
                Mood::Slow(time) => tokio::time::sleep(time).await,
                Mood::FailsFor(text) if text_of(&job) == text => {
                    return Err("the store dislikes it".into());
                }
                Mood::Takes | Mood::FailsFor(_) => {}
            }
            self.jobs.lock().unwrap().push(job);
            Ok(())
        })
    }
}

/// A handler that adds one job, and lets the queue's test see how that went.
pub(crate) async fn add(tasks: &BackgroundTasks, text: &str) -> Result<(), AddJobError> {
    tasks.add_job(note(text)).await.map(drop)
}
