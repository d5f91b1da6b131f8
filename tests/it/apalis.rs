//! apalis: its queue, and its workers.

use std::{
    future::{Ready, poll_fn, ready},
    task::Poll,
    time::Duration,
};

use apalis_core::{
    backend::{
        TaskSink,
        dequeue::VecDequeBackend,
        ext::poll_strategy::{PollSnapshot, PollStrategy},
    },
    error::BoxDynError,
    task::{ExecutionContext, attempt::Attempt, builder::TaskBuilder, data::Data},
    worker::{builder::WorkerBuilder, ext::ack::AcknowledgementExt},
};
use tokio::{sync::mpsc, time::Instant};
use tower_background_tasks::{ApalisStore, Job, Jobs, PollInterval, Runner, StoredJob};

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
