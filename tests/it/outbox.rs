//! Jobs that a store keeps by the caller's transaction, and with options.

use std::{
    any::Any,
    collections::HashMap,
    mem,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body, response::IntoResponse, routing::post};
use futures_util::FutureExt;
use http::{Request, StatusCode};
use tower::ServiceExt;
use tower_background_tasks::{
    AddJobError, AddJobErrorKind, BackgroundTasks, BoxError, DuplicateJob, Job, JobId, JobRequest,
    JobStore, PushFuture, Runner, SkipReason, StoredJob, TaskEnd, UnsupportedByStore,
};

use crate::{
    job_support::{Impostor, Mood, Note, Store, note, notes},
    support::{Log, full, get, read_all, respond, soon},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// A database: what was committed, and by which keys.
#[derive(Default)]
struct Database {
    jobs: Mutex<Vec<StoredJob>>,
    keys: Mutex<HashMap<String, JobId>>,
}

/// Its jobs are in the database once it is committed.
#[derive(Default)]
struct Transaction(Vec<StoredJob>);

impl Database {
    fn begin(&self) -> Transaction {
        Transaction::default()
    }

    fn commit(&self, tx: &mut Transaction) {
        self.jobs.lock().unwrap().append(&mut tx.0);
    }

    fn claim(&self, job: &StoredJob) -> Result<(), BoxError> {
        let Some(key) = job.unique_key() else {
            return Ok(());
        };
        let (key, id) = (format!("{}/{key}", job.name()), job.id());
        match *self.keys.lock().unwrap().entry(key).or_insert(id) {
            other if other == id => Ok(()),
            other => Err(DuplicateJob::of(Some(other)).into()),
        }
    }

    fn len(&self) -> usize {
        self.jobs.lock().unwrap().len()
    }
}

impl JobStore for Database {
    fn push(&self, job: StoredJob) -> PushFuture<'_> {
        Box::pin(async move {
            self.claim(&job)?;
            self.jobs.lock().unwrap().push(job);
            Ok(())
        })
    }

    fn push_in<'a>(
        &'a self,
        connection: &'a mut (dyn Any + Send),
        job: StoredJob,
    ) -> PushFuture<'a> {
        Box::pin(async move {
            let tx = connection.downcast_mut::<Transaction>();
            let tx = tx.ok_or(UnsupportedByStore::new("it is no `Transaction`"))?;
            self.claim(&job)?;
            tx.0.push(job);
            Ok(())
        })
    }
}

fn runner_on(store: impl JobStore) -> Runner {
    let jobs = notes(&Log::default());
    Runner::builder().jobs(jobs).job_store(store).build()
}

#[tokio::test]
async fn a_job_is_there_once_its_transaction_commits() {
    let database = Arc::new(Database::default());
    let runner = runner_on(database.clone());
    let mut tx = database.begin();
    let id = runner.add_job_in(&mut tx, note("job")).await.unwrap();
    assert_eq!(database.len(), 0);
    database.commit(&mut tx);
    assert_eq!(database.jobs.lock().unwrap()[0].id(), id);
    runner
        .add_job_in(&mut tx, note("rolled back"))
        .await
        .unwrap();
    drop(tx);
    assert_eq!(database.len(), 1);
}

#[tokio::test]
async fn a_job_in_a_transaction_knows_its_request_and_its_trace() {
    let with_store = Arc::new(Database::default());
    let by_hand = Runner::builder().jobs(notes(&Log::default())).build();
    for (runner, database, jobs) in [
        (runner_on(with_store.clone()), with_store, 2),
        (by_hand, Arc::default(), 1),
    ] {
        knows_its_request_and_its_trace(&runner, database, jobs).await;
    }
}

async fn knows_its_request_and_its_trace(runner: &Runner, database: Arc<Database>, jobs: usize) {
    let kept = database.clone();
    let handler = async move |tasks: BackgroundTasks| {
        let mut tx = kept.begin();
        if jobs == 2 {
            tasks.add_job_in(&mut tx, note("by the store")).await?;
        }
        let insert = async |stored| {
            tx.0.push(stored);
            Ok::<(), BoxError>(())
        };
        tasks.add_job_with(note("by hand"), insert).await?;
        kept.commit(&mut tx);
        Ok::<_, AddJobError>(StatusCode::ACCEPTED)
    };
    let app = Router::new()
        .route("/orders", post(handler))
        .layer(runner.layer());
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::post("/orders").header("traceparent", traceparent);
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.unwrap().status(), StatusCode::ACCEPTED);
    let stored = mem::take(&mut *database.jobs.lock().unwrap());
    assert_eq!(stored.len(), jobs);
    for job in stored {
        assert_eq!(job.request().unwrap().path, "/orders");
        assert_eq!(job.trace()["traceparent"], traceparent);
    }
    assert_eq!(runner.stats().added, 0);
}

#[tokio::test]
async fn what_insert_fails_with_comes_back_with_the_job() {
    let runner = Runner::new();
    let fails = async |_| Err::<(), _>("no disk");
    let error = runner.add_job_with(note("job"), fails).await.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::StoreFailed(_)));
    assert_eq!(error.into_job::<Note>().unwrap(), note("job"));
    let other = StoredJob::new(&note("other")).unwrap().id();
    let duplicate = async |_| Err(DuplicateJob::of(Some(other)));
    let error = runner.add_job_with(note("job"), duplicate).await;
    assert_eq!(error.unwrap_err().duplicate().unwrap().id(), Some(other));
}

#[tokio::test]
async fn a_job_that_is_not_registered_is_not_inserted() {
    let runner = Runner::builder().jobs(notes(&Log::default())).build();
    let insert = async |_| panic!("on purpose: it is not called");
    let error = runner.add_job_with::<_, BoxError>(Impostor, insert).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::NotRegistered));
}

#[tokio::test]
async fn a_store_says_what_it_cannot_do() {
    let runner = runner_on(Store::new(Mood::Takes));
    let mut tx = Transaction::default();
    let error = runner.add_job_in(&mut tx, note("job")).await.unwrap_err();
    assert!(matches!(error.kind(), AddJobErrorKind::Unsupported(_)));
    assert!(error.to_string().contains("`PostgresStore`"), "{error}");

    let database = Arc::new(Database::default());
    let (runner, mut number) = (runner_on(database.clone()), 7);
    let error = runner.add_job_in(&mut number, note("job")).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("no `Transaction`"), "{error}");
    assert_eq!(error.into_response().status(), 500);
}

#[tokio::test]
async fn a_duplicate_is_answered_with_the_id_that_has_the_key() {
    let database = Arc::new(Database::default());
    let runner = runner_on(database.clone());
    let order = || note("job").unique("order-42");
    let id = runner.add_job(order()).await.unwrap();
    let mut tx = database.begin();
    for again in [
        runner.add_job(order()).await,
        runner.add_job_in(&mut tx, order()).await,
    ] {
        let error = again.unwrap_err();
        assert_eq!(error.duplicate().unwrap().id(), Some(id));
        assert!(error.is_permanent());
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(
            read_all(response).await,
            format!("already accepted as {id}")
        );
    }
    runner
        .add_job(note("job").unique("order-43"))
        .await
        .unwrap();
    runner.add_job(note("job")).await.unwrap();
    assert_eq!((database.len(), tx.0.len()), (3, 0));
}

#[tokio::test]
async fn options_reach_the_store() {
    let store = Store::new(Mood::Takes);
    let runner = runner_on(store.clone());
    let before = SystemTime::now();
    let request = note("job").after(HOUR).priority(7).unique("key");
    runner.add_job(request).await.unwrap();
    runner
        .add_job(JobRequest::new(note("plain")))
        .await
        .unwrap();
    runner
        .add_job(note("far").after(Duration::MAX))
        .await
        .unwrap();
    let jobs = store.jobs.lock().unwrap();
    let run_at = jobs[0].run_at().unwrap();
    assert!(run_at >= before + HOUR && run_at <= SystemTime::now() + HOUR);
    assert_eq!(
        (jobs[0].priority(), jobs[0].unique_key()),
        (Some(7), Some("key"))
    );
    assert_eq!((jobs[1].run_at(), jobs[1].priority()), (None, None));
    assert!(jobs[2].run_at().unwrap() > before + 1_000 * HOUR);
}

#[tokio::test]
async fn options_and_transactions_need_a_store() {
    let jobs = || notes(&Log::default());
    let here = Runner::builder().jobs(jobs()).build();
    let spilling = Runner::builder()
        .jobs(jobs())
        .spill_store(Store::new(Mood::Takes))
        .build();
    for runner in [here, spilling] {
        let added = runner.add_job(note("job").priority(1)).await;
        let mut tx = Transaction::default();
        let inserted = runner.add_job_in(&mut tx, note("job"));
        for error in [added.unwrap_err(), inserted.await.unwrap_err()] {
            assert!(matches!(error.kind(), AddJobErrorKind::NeedsStore));
            assert!(error.to_string().contains("`job_store`"), "{error}");
            assert_eq!(error.into_job::<Note>().unwrap(), note("job"));
        }
        assert_eq!(runner.stats().added, 0);
    }
}

#[tokio::test]
async fn a_payload_beyond_the_limit_is_refused() {
    let store = Store::new(Mood::Takes);
    let runner = Runner::builder()
        .job_store(store.clone())
        .max_job_bytes(20)
        .build();
    let long = note("0123456789"); // `{"text":"…"}` is 11 bytes around it
    let error = runner.add_job(long).await.unwrap_err();
    let AddJobErrorKind::TooLarge {
        bytes: 21,
        limit: 20,
    } = error.kind()
    else {
        panic!("{error}");
    };
    assert_eq!(error.into_response().status(), 500);
    runner.add_job(note("012345678")).await.unwrap();
    assert_eq!(store.texts(), ["012345678"]);
    let megabyte = "x".repeat(1 << 20);
    let error = runner_on(store).add_job(note(&megabyte)).await.unwrap_err();
    assert!(error.to_string().contains("`max_job_bytes`"));
}

#[test]
#[should_panic(expected = "`max_job_bytes` must not be zero")]
fn no_bytes_for_a_job_are_refused() {
    let _ = Runner::builder().max_job_bytes(0);
}

/// Adds a job to a hold. Returns the ends of what was added.
async fn held(store: Arc<Store>, is_released: bool) -> Vec<String> {
    let ends = Log::default();
    let seen = ends.clone();
    let runner = Runner::builder()
        .jobs(notes(&Log::default()))
        .job_store(store.clone())
        .on_task_end(move |report| seen.write(format!("{} {}", report.name(), report.end())))
        .build();
    let response = respond(&runner, get("/"), |tasks| {
        let held = tasks.hold();
        let added = held.add_job(note("job")).now_or_never();
        added.unwrap().unwrap();
        assert!(store.texts().is_empty(), "not before the release");
        if is_released {
            held.release();
        }
        full("hello")
    })
    .await;
    assert!(
        store.texts().is_empty(),
        "not before the response has ended"
    );
    read_all(response).await;
    soon(runner.idle()).await;
    ends.lines()
}

#[tokio::test]
async fn a_held_job_is_stored_only_once_it_is_released() {
    let store = Store::new(Mood::Takes);
    let skipped = TaskEnd::Skipped(SkipReason::NotReleased);
    assert_eq!(
        held(store.clone(), false).await,
        [format!("note {skipped}")]
    );
    assert!(store.texts().is_empty());
    assert_eq!(held(store.clone(), true).await, ["note completed"]);
    assert_eq!(store.texts(), ["job"]);
    let down = Store::new(Mood::Fails);
    assert_eq!(held(down, true).await, ["note failed: the store is down"]);
    let duplicate = Store::new(Mood::Duplicate);
    let ends = held(duplicate, true).await;
    assert_eq!(ends, ["note failed: another job has the same key"]);
}

#[tokio::test]
async fn a_transaction_decides_though_the_queue_is_held() {
    let database = Arc::new(Database::default());
    let runner = runner_on(database.clone());
    let response = respond(&runner, get("/"), |tasks| {
        let held = tasks.hold();
        let mut tx = database.begin();
        let added = held.add_job_in(&mut tx, note("job"));
        added.now_or_never().unwrap().unwrap();
        database.commit(&mut tx);
        full("hello")
    });
    drop(response.await);
    assert_eq!((database.len(), runner.stats().added), (1, 0));
}
