//! apalis: its queue, and its workers.

use std::{
    error::Error,
    fmt,
    future::{Ready, pending, poll_fn, ready},
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, SystemTime},
};

use apalis_core::{
    backend::{
        TaskSink,
        dequeue::VecDequeBackend,
        ext::poll_strategy::{PollSnapshot, PollStrategy},
    },
    error::{AbortError, BoxDynError},
    task::{ExecutionContext, attempt::Attempt, builder::TaskBuilder, data::Data},
    worker::{builder::WorkerBuilder, ext::ack::AcknowledgementExt},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};
use tower::Service;
use tower_background_tasks::{
    ApalisStore, Backoff, BoxError, Job, JobContext, JobId, JobStore, Jobs, PollInterval,
    PushFuture, Runner, StoredJob, TaskResult, UnsupportedByStore,
};

use crate::{
    job_support::{note, notes},
    support::{Log, soon},
    worker::Greet,
};

type GreetState = <Greet as Job>::State;
type Ended = (Result<(), String>, usize, Option<usize>);

/// Sends how each task ended, at which attempt, of how many.
fn acknowledge(
    ends: mpsc::UnboundedSender<Ended>,
) -> impl FnMut(&Result<(), BoxDynError>, &ExecutionContext) -> Ready<Result<(), std::io::Error>> + Clone
{
    move |result, cx| {
        let result = result.as_ref().copied().map_err(ToString::to_string);
        let _ = ends.send((result, cx.attempt(), cx.max_attempts()));
        ready(Ok(()))
    }
}

#[tokio::test]
async fn worker_runs_stored_jobs_and_survives_failures_and_panics() {
    let (log, storage) = (Log::default(), VecDequeBackend::new());
    let store = ApalisStore::prepared(storage.clone(), |stored, task| {
        assert_eq!(stored.name(), "note");
        task.max_attempts(7)
    });
    let runner = Runner::builder().jobs(notes(&log)).job_store(store).build();
    for text in ["first", "fail", "panic", "last"] {
        runner.add_job(note(text)).await.unwrap();
    }
    let (ends, mut ended) = mpsc::unbounded_channel();
    let worker = WorkerBuilder::new("worker")
        .backend(storage)
        .ack_with(acknowledge(ends))
        .build(notes(&log));
    let working = tokio::spawn(async move { drop(worker.run().await) });
    let mut results = Vec::new();
    for _ in 0..4 {
        let (result, attempt, max_attempts) = soon(ended.recv()).await.unwrap();
        assert_eq!((attempt, max_attempts), (1, Some(7)));
        results.push(result);
    }
    working.abort();
    results.sort();
    let panicked = "job `note` panicked: on purpose: a job";
    let failures = [Err(panicked.into()), Err("on purpose".into())];
    assert_eq!(
        (&results[..2], &results[2..]),
        (&[Ok(()), Ok(())][..], &failures[..])
    );
    assert_eq!(log.lines(), ["first", "last"]);
}

/// A queue with one task, which has been tried `attempts` times.
async fn queue(attempts: usize) -> VecDequeBackend<StoredJob> {
    let greet = Greet {
        whom: "Ferris".into(),
        greeting: None,
    };
    let task = TaskBuilder::new(StoredJob::new(&greet).unwrap()).attempt(attempts);
    let mut queue = VecDequeBackend::new();
    queue.push_task(task.build()).await.unwrap();
    queue
}

async fn work(
    stored: StoredJob,
    attempt: Attempt,
    jobs: Data<Jobs<GreetState>>,
) -> Result<(), BoxDynError> {
    let attempt = attempt.current().try_into()?;
    jobs.run_attempt(stored, attempt).await
}

#[tokio::test]
async fn service_function_or_closure_makes_a_worker() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let jobs = Jobs::new(sender).register::<Greet>();
    let (service, of_data, closure) = (jobs.clone(), jobs.clone(), jobs);

    let worker = WorkerBuilder::new("service").backend(queue(4).await);
    let worker = worker.build(service);
    let working = tokio::spawn(async move { drop(worker.run().await) });
    assert_eq!(soon(seen.recv()).await.unwrap().1.attempt(), 5);
    working.abort();

    let worker = WorkerBuilder::new("function").backend(queue(2).await);
    let worker = worker.data(of_data).build(work);
    let working = tokio::spawn(async move { drop(worker.run().await) });
    assert_eq!(soon(seen.recv()).await.unwrap().1.attempt(), 3);
    working.abort();

    let worker = WorkerBuilder::new("closure").backend(queue(2).await);
    let worker = worker.build(move |stored| closure.run(stored));
    let working = tokio::spawn(async move { drop(worker.run().await) });
    let (_, cx) = soon(seen.recv()).await.unwrap();
    assert_eq!(cx.attempt(), 1, "it is told no other");
    working.abort();
}

/// A backend that nothing wakes but its strategy: it looks, finds nothing, and is pending.
async fn looks(mut strategy: impl PollStrategy, times: usize) {
    let mut looked = 0;
    poll_fn(|cx| {
        let _ = strategy.poll_drive(cx, &PollSnapshot::new()); // as apalis does
        looked += 1;
        if looked < times {
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn worker_alone_in_its_task_looks_again_and_again() {
    let begun = Instant::now();
    let every = Duration::from_millis(100);
    soon(looks(PollInterval::new(every), 31)).await;
    let took = begun.elapsed();
    assert!(took >= 30 * every && took < 33 * every, "{took:?}");
}

#[test]
#[should_panic = "polls every 0 s"]
fn an_interval_of_nothing_is_refused() {
    let _ = PollInterval::new(Duration::ZERO);
}

/// Notes until when a job waits.
#[derive(Default)]
struct Postponing(Mutex<Vec<(JobId, SystemTime)>>);

impl JobStore for Postponing {
    fn push(&self, _: StoredJob) -> PushFuture<'_> {
        unreachable!("nothing is stored anew")
    }

    fn postpone(&self, id: JobId, time: SystemTime) -> PushFuture<'_> {
        Box::pin(async move {
            self.0.lock().unwrap().push((id, time));
            Ok(())
        })
    }
}

/// Ends an attempt of a job, of five.
async fn attempt(jobs: &mut Jobs<Log>, stored: StoredJob, attempt: usize) -> Result<(), BoxError> {
    let task = stored.into_task().attempt(attempt).max_attempts(5);
    jobs.call(task.build()).await
}

fn stored(text: &str) -> StoredJob {
    StoredJob::new(&note(text)).unwrap()
}

#[tokio::test]
async fn a_job_that_fails_waits_in_the_store_for_longer_each_time() {
    let (store, failing) = (Arc::new(Postponing::default()), stored("fail"));
    let mut jobs = notes(&Log::default()).retry(Backoff::default(), store.clone());
    let begun = SystemTime::now();
    for number in [1, 2, 4] {
        let error = attempt(&mut jobs, failing.clone(), number).await;
        assert_eq!(error.unwrap_err().to_string(), "on purpose");
    }
    let postponed = store.0.lock().unwrap();
    for ((id, time), seconds) in postponed.iter().zip([10, 30, 270]) {
        let share = time.duration_since(begun).unwrap().as_secs_f64() / f64::from(seconds);
        assert_eq!(*id, failing.id());
        assert!((0.8..1.3).contains(&share), "{share}");
    }
    assert_eq!(postponed.len(), 3);
}

#[tokio::test]
async fn a_job_that_fails_for_the_last_time_is_kept_as_dead() {
    let store = Arc::new(Postponing::default());
    let mut jobs = notes(&Log::default()).retry(Backoff::default(), store.clone());
    let no_job: StoredJob = serde_json::from_str("{}").unwrap();
    for (stored, number) in [(stored("fail"), 5), (no_job, 1)] {
        let error = attempt(&mut jobs, stored, number).await.unwrap_err();
        assert!(error.is::<AbortError>(), "{error}");
    }
    attempt(&mut jobs, stored("done"), 5).await.unwrap();
    assert!(store.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_job_of_another_version_is_tried_again() {
    let store = Arc::new(Postponing::default());
    let mut older = Jobs::new(Log::default()).retry(Backoff::default(), store.clone());
    let error = attempt(&mut older, stored("done"), 1).await.unwrap_err();
    assert!(!error.is::<AbortError>(), "{error}");
    assert_eq!(store.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_that_cannot_postpone_changes_no_failure() {
    struct Cannot;
    impl JobStore for Cannot {
        fn push(&self, _: StoredJob) -> PushFuture<'_> {
            Box::pin(ready(Ok(())))
        }
    }
    let error = Cannot.postpone(stored("fail").id(), SystemTime::now());
    assert!(error.await.unwrap_err().is::<UnsupportedByStore>());
    let mut jobs = notes(&Log::default()).retry(Backoff::default(), Cannot);
    let error = attempt(&mut jobs, stored("fail"), 1).await.unwrap_err();
    assert_eq!(error.to_string(), "on purpose");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_holds_no_place_on_the_worker() {
    struct Hangs;
    impl JobStore for Hangs {
        fn push(&self, _: StoredJob) -> PushFuture<'_> {
            Box::pin(pending())
        }
        fn postpone(&self, _: JobId, _: SystemTime) -> PushFuture<'_> {
            Box::pin(pending())
        }
    }
    let (begun, mut jobs) = (
        Instant::now(),
        notes(&Log::default()).retry(Backoff::default(), Hangs),
    );
    let error = attempt(&mut jobs, stored("fail"), 1).await.unwrap_err();
    assert_eq!(error.to_string(), "on purpose");
    assert_eq!(begun.elapsed().as_secs(), 5);
}

/// apalis prints the error of a job outside of the job.
#[tokio::test]
async fn an_error_that_panics_when_it_is_printed_does_not_reach_the_worker() {
    let mut jobs = Jobs::new(()).register::<Unprintable>();
    let stored = StoredJob::new(&Unprintable).unwrap();
    let error = jobs.call(stored.into_task().build()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "an error that panicked: on purpose: no text"
    );
}

#[derive(Debug, Serialize, Deserialize)]
struct Unprintable;

impl Job for Unprintable {
    const NAME: &'static str = "unprintable";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        Err(self.into())
    }
}

impl fmt::Display for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("on purpose: no text")
    }
}

impl Error for Unprintable {}

/// It returns the error of another job.
#[derive(Serialize, Deserialize)]
struct RunsAnother;

impl Job for RunsAnother {
    const NAME: &'static str = "runs-another";
    type State = ();

    async fn run(self, (): (), _: JobContext) -> TaskResult {
        let no_job: StoredJob = serde_json::from_str("{}").unwrap();
        Jobs::new(()).run(no_job).await
    }
}

#[tokio::test]
async fn a_job_that_returns_another_jobs_error_has_failed() {
    let (store, ends) = (Arc::new(Postponing::default()), Log::default());
    let seen = ends.clone();
    let mut jobs = Jobs::new(())
        .register::<RunsAnother>()
        .on_job_end(move |report| seen.write(report.end().as_str()))
        .retry(Backoff::default(), store.clone());
    let task = StoredJob::new(&RunsAnother).unwrap().into_task();
    let error = jobs.call(task.attempt(1).max_attempts(5).build()).await;
    assert!(!error.unwrap_err().is::<AbortError>());
    assert_eq!(ends.lines(), ["failed"]);
    assert_eq!(store.0.lock().unwrap().len(), 1);
}
