//! Stored jobs on a worker.

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tower_background_tasks::{Job, JobContext, JobId, Jobs, RunJobError, StoredJob, TaskResult};

use crate::{
    job_support::{note, notes},
    support::Log,
};

fn stored(json: serde_json::Value) -> StoredJob {
    serde_json::from_value(json).unwrap()
}

const ID: &str = "0FHYPNQPEB8TFT2SBGGSVJH58E";

/// Version 2, say: `greeting` is new.
#[derive(Serialize, Deserialize)]
pub(crate) struct Greet {
    pub(crate) whom: String,
    #[serde(default)]
    pub(crate) greeting: Option<String>,
}

impl Job for Greet {
    const NAME: &'static str = "greet";
    type State = mpsc::UnboundedSender<(String, JobContext)>;

    async fn run(self, seen: Self::State, cx: JobContext) -> TaskResult {
        let greeting = self.greeting.unwrap_or("Hello".into());
        seen.send((format!("{greeting}, {}", self.whom), cx))
            .unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn job_knows_its_number_attempt_and_request_without_a_runner() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let jobs = Jobs::new(sender).register::<Greet>();
    let job = stored(json!({
        "id": ID, "name": "greet", "payload": {"whom": "Ferris"},
        "attempts": 1, "request": {"method": "POST", "path": "/signup"}, "trace": {},
        "from": "a newer version, with more to say",
    }));
    jobs.run_attempt(job, 3).await.unwrap();
    let (text, cx) = seen.try_recv().unwrap();
    assert_eq!(text, "Hello, Ferris");
    assert_eq!(cx.id(), ID.parse::<JobId>().unwrap());
    assert_eq!(
        cx.attempt(),
        4,
        "once before it was stored, and three times since"
    );
    assert_eq!(cx.request().unwrap().path, "/signup");
    assert!(cx.task().is_none());
}

#[tokio::test]
async fn unknown_name_unfit_payload_and_panic_are_named_failures() {
    let jobs = notes(&Log::default());
    let unknown = json!({"id": ID, "name": "from-next-year", "payload": {}});
    let error = jobs.run(stored(unknown)).await.unwrap_err();
    let text = "no job is registered as `from-next-year`";
    assert!(error.to_string().contains(text), "{error}");
    assert!(matches!(
        error.downcast_ref(),
        Some(RunJobError::NotRegistered { .. })
    ));

    let (too_deep, no_json) = (nested(200), json!("no JSON"));
    for payload in [
        json!({"texts": 1}),
        json!({"text": 1}),
        json!(null),
        json!(too_deep),
        no_json,
    ] {
        let other_version = json!({"id": ID, "name": "note", "payload": payload});
        let error = jobs.run(stored(other_version)).await.unwrap_err();
        let text = "the payload of job `note` does not parse";
        assert!(error.to_string().contains(text), "{error}");
        assert!(matches!(
            error.downcast_ref(),
            Some(RunJobError::Payload { .. })
        ));
    }

    let job = StoredJob::new(&note("panic")).unwrap();
    let error = jobs.run(job).await.unwrap_err();
    assert_eq!(error.to_string(), "job `note` panicked: on purpose: a job");
    assert!(matches!(
        error.downcast_ref(),
        Some(RunJobError::Panicked { .. })
    ));
}

#[tokio::test]
async fn malformed_job_fails_by_name_and_is_written_unchanged() {
    for json in [
        json!(null),
        json!([1]),
        json!("text"),
        json!({"name": "note"}),
        json!({"id": 7, "name": "note"}),
    ] {
        let read = stored(json.clone());
        assert_eq!(serde_json::to_value(&read).unwrap(), json);
        let error = notes(&Log::default()).run(read).await.unwrap_err();
        assert!(matches!(
            error.downcast_ref(),
            Some(RunJobError::Unreadable)
        ));
    }
}

#[test]
fn a_stored_job_is_read_as_it_was_written() {
    let job = StoredJob::new(&note("text")).unwrap();
    let json = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<StoredJob>(&json).unwrap(), job);
    assert!(
        !format!("{job:?}").contains("text"),
        "the payload is not for a log"
    );
}

#[test]
fn payload_may_be_stored_as_itself_or_as_a_string() {
    let as_it_is = json!({"id": ID, "name": "note", "payload": {"text": "by hand"}});
    let written = serde_json::to_value(stored(as_it_is.clone())).unwrap();
    assert_eq!(written["payload"], json!(r#"{"text":"by hand"}"#));
    assert_eq!(stored(written), stored(as_it_is));
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

/// Any JSON.
#[derive(Serialize, Deserialize)]
struct Hook(serde_json::Value);

impl Job for Hook {
    const NAME: &'static str = "hook";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        Ok(())
    }
}

#[tokio::test]
async fn too_deeply_nested_payload_is_read_and_fails_by_name() {
    let deep: serde_json::Value = serde_json::from_str(&nested(126)).unwrap();
    for (payload, runs) in [(deep.clone(), true), (json!([[deep]]), false)] {
        let json = serde_json::to_string(&StoredJob::new(&Hook(payload)).unwrap()).unwrap();
        let read: StoredJob = serde_json::from_str(&json).expect("a worker would end");
        let ran = Jobs::new(()).register::<Hook>().run(read).await;
        assert_eq!(ran.is_ok(), runs);
        if let Err(error) = ran {
            assert!(matches!(
                error.downcast_ref(),
                Some(RunJobError::Payload { .. })
            ));
        }
    }
}

#[test]
fn floats_come_back_as_they_were() {
    let mut bits = 0x1234_5678_9abc_def1_u64;
    for _ in 0..10_000 {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        let float = f64::from_bits(bits);
        if float.is_finite() {
            let json =
                serde_json::to_string(&StoredJob::new(&Hook(json!(float))).unwrap()).unwrap();
            let read: StoredJob = serde_json::from_str(&json).unwrap();
            let back: f64 = serde_json::from_str(read.payload()).unwrap();
            assert_eq!(back.to_bits(), bits);
        }
    }
}

#[derive(Debug)]
struct OwnError;

impl std::fmt::Display for OwnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("its own")
    }
}

impl std::error::Error for OwnError {}

#[derive(Serialize, Deserialize)]
struct Fails;

impl Job for Fails {
    const NAME: &'static str = "fails";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        Err(OwnError.into())
    }
}

#[tokio::test]
async fn a_job_s_own_error_comes_out_as_it_is() {
    let jobs = Jobs::new(()).register::<Fails>();
    let error = jobs.run(StoredJob::new(&Fails).unwrap()).await.unwrap_err();
    assert!(error.is::<OwnError>());
}

/// Panics when it is dropped, unless that is while it unwinds.
#[derive(Serialize, Deserialize)]
struct Brittle {
    for_ever: bool,
}

impl Drop for Brittle {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("on purpose: a destructor");
        }
    }
}

impl Job for Brittle {
    const NAME: &'static str = "brittle";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        if self.for_ever {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_destructor_that_panics_harms_no_worker() {
    let jobs = Jobs::new(()).register::<Brittle>();
    let of =
        |for_ever| stored(json!({"id": ID, "name": "brittle", "payload": {"for_ever": for_ever}}));
    let error = jobs.run(of(false)).await.unwrap_err();
    assert!(error.to_string().contains("on purpose: a destructor"));
    let mut running = Box::pin(jobs.run(of(true)));
    assert!(futures_util::poll!(&mut running).is_pending());
    drop(running);
}

/// Each end that `jobs` are told of, as `name attempt end`.
fn told(jobs: Jobs<Log>) -> (Jobs<Log>, Log) {
    let log = Log::default();
    let seen = log.clone();
    let jobs = jobs.on_job_end(move |report| {
        let (name, attempt, end) = (report.name(), report.attempt(), report.end().as_str());
        let error = report.error().map(|error| format!(": {error}"));
        let error = error.unwrap_or_default();
        seen.write(format!("{name} {attempt} {end}{error}"));
        panic!("on purpose: an observer");
    });
    (jobs, log)
}

#[tokio::test]
async fn each_end_on_a_worker_is_told_once() {
    let (jobs, log) = told(notes(&Log::default()));
    for text in ["fine", "panic", "fail"] {
        let job = StoredJob::new(&note(text)).unwrap();
        let ended = jobs.run_attempt(job, 2).await;
        assert_eq!(ended.is_ok(), text == "fine");
    }
    for json in [
        json!({"id": ID, "name": "from-next-year", "payload": {}}),
        json!({"id": ID, "name": "note", "payload": 7}),
        json!({"name": "note"}),
    ] {
        jobs.run(stored(json)).await.unwrap_err();
    }
    let mut stops = jobs.run(StoredJob::new(&note("waits")).unwrap());
    assert!((&mut stops).now_or_never().is_none());
    drop(stops);
    drop(jobs.run(StoredJob::new(&note("never begun")).unwrap()));
    let lines = log.lines();
    let begins: Vec<_> = lines
        .iter()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(
        begins,
        [
            "note 2 completed",
            "note 2 panicked",
            "note 2 failed",
            "from-next-year 1 unreadable",
            "note 1 unreadable",
            "note 1 unreadable",
            "note 1 aborted",
        ]
    );
    assert!(lines[1].contains("on purpose: a job"), "{lines:?}");
    assert!(
        lines[3].contains("register it with the worker"),
        "{lines:?}"
    );
}
