//! Jobs and stores for tests.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tower_background_tasks::{
    AddJobError, BackgroundTasks, BoxError, DuplicateJob, Job, JobContext, JobStore, Jobs,
    PushFuture, StoredJob, TaskResult,
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
            "waits" => std::future::pending().await,
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
    pushes: AtomicUsize,
}

#[derive(Clone, Default)]
pub(crate) enum Mood {
    #[default]
    Takes,
    Fails,
    /// Another job has the key.
    Duplicate,
    Panics,
    NeverAnswers,
    /// Takes each after this time.
    Slow(Duration),
    /// Never answers for one in so many, and takes the others.
    HangsForOneIn(usize),
    /// Takes each, and holds its thread for this time.
    Blocks(Duration),
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

    /// Counts a push. Returns how many there have been.
    fn pushed(&self) -> usize {
        self.pushes.fetch_add(1, Ordering::SeqCst) + 1
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
                Mood::Duplicate => return Err(DuplicateJob::of(None).into()),
                Mood::Panics => panic!("on purpose: a store"),
                Mood::NeverAnswers => std::future::pending().await,
                Mood::Slow(time) => tokio::time::sleep(time).await,
                Mood::HangsForOneIn(many) if self.pushed() % many == 0 => {
                    std::future::pending().await
                }
                Mood::Blocks(time) => std::thread::sleep(time),
                Mood::FailsFor(text) if text_of(&job) == text => {
                    return Err("the store dislikes it".into());
                }
                Mood::Takes | Mood::HangsForOneIn(_) | Mood::FailsFor(_) => {}
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

/// A store whose destructors and texts panic.
pub(crate) enum Vicious {
    /// Its error does.
    Error,
    /// Its pushes do, when they have taken the job.
    Push,
    /// Its pushes do, which take none.
    PushForEver,
}

/// Panics when it is shown, and when it is dropped.
#[derive(Debug)]
struct Bomb;

impl fmt::Display for Bomb {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("on purpose: shown");
    }
}

impl std::error::Error for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("on purpose: dropped");
        }
    }
}

/// Has a destructor, as an `async` block whose locals are dropped by its end has none.
struct Pushing {
    for_ever: bool,
    _bomb: Bomb,
}

impl Future for Pushing {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.for_ever {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl JobStore for Vicious {
    fn push(&self, _: StoredJob) -> PushFuture<'_> {
        let for_ever = match self {
            Self::Error => return Box::pin(async { Err(Bomb.into()) }),
            Self::Push => false,
            Self::PushForEver => true,
        };
        Box::pin(Pushing {
            for_ever,
            _bomb: Bomb,
        })
    }
}
