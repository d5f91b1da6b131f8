//! At shutdown: jobs that have not ended go to the store.

use std::{collections::HashSet, future::pending, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::post};
use http::{Request, StatusCode};
use tokio::{sync::mpsc, time::Instant};
use tower::ServiceExt;
use tower_background_tasks::{
    BackgroundTasks, OnFailure, Order, Runner, RunnerBuilder, ShutdownReport, StoredJob, Task,
    TaskInfo, TaskState,
};

use crate::{
    job_support::{Mood, Store, Vicious, add, note, notes},
    support::{Log, block_on, full, read_all, soon},
};

const SECOND: Duration = Duration::from_secs(1);

fn builder(log: &Log, store: &Arc<Store>) -> RunnerBuilder {
    Runner::builder()
        .jobs(notes(log))
        .spill_store(store.clone())
}

fn names(rows: &[TaskInfo]) -> Vec<&str> {
    rows.iter().map(TaskInfo::name).collect()
}

/// Every task has one end.
fn assert_adds_up(runner: &Runner) {
    let stats = runner.stats();
    let ended = stats.completed + stats.failed + stats.panicked + stats.timed_out + stats.skipped;
    let ended = ended + stats.rejected + stats.aborted + stats.spilled;
    assert_eq!(stats.added, ended, "{stats:?}");
    assert_eq!((stats.pending, stats.running), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn running_and_waiting_jobs_are_all_spilled() {
    for order in [Order::Sequential, Order::Concurrent] {
        let (log, store) = (Log::default(), Store::new(Mood::Takes));
        let (ends, mut ended) = mpsc::unbounded_channel();
        let runner = builder(&log, &store)
            .order(order)
            .max_running(1)
            .on_task_end(move |report| {
                let _ = ends.send((report.name().to_owned(), report.end().to_string()));
            })
            .build();
        let tasks = BackgroundTasks::new();
        let response = runner.attach(full("hello"), tasks.clone());
        add(&tasks, "done").await.unwrap();
        add(&tasks, "stuck").await.unwrap(); // runs, and has the only place
        add(&tasks, "its turn").await.unwrap();
        tasks.add_task(Task::new(pending::<()>()).named("no job"));
        add(&tasks, "behind").await.unwrap();
        drop(response);
        tokio::time::sleep(SECOND).await;
        runner.add_job(note("a place")).await.unwrap();
        let open = BackgroundTasks::new();
        let in_flight = runner.attach(full("hello"), open.clone());
        add(&open, "its response").await.unwrap();

        let report = runner.shutdown(SECOND).await;
        let mut texts = store.texts();
        texts.sort();
        assert_eq!(
            texts,
            ["a place", "behind", "its response", "its turn", "stuck"]
        );
        assert_eq!(names(report.spilled()), ["note"; 5]);
        assert_eq!(names(report.unfinished()), ["no job"]);
        assert_eq!(report.spill_error(), None);
        let running = |row: &TaskInfo| row.state() == TaskState::Running;
        assert_eq!(
            report.spilled().iter().filter(|row| running(row)).count(),
            1
        );
        assert!(!report.is_clean());
        drop(in_flight);
        soon(runner.idle()).await;
        assert_eq!(
            log.lines(),
            ["done", "stuck"],
            "what was spilled does nothing more here"
        );
        let stats = runner.stats();
        assert_eq!((stats.completed, stats.spilled, stats.aborted), (1, 5, 1));
        assert_adds_up(&runner);
        let mut seen = 0;
        while let Ok((name, end)) = ended.try_recv() {
            seen += 1;
            let expected = if name == "note" {
                "handed to the store"
            } else {
                "aborted"
            };
            assert!(end == expected || end == "completed", "{name}: {end}");
        }
        assert_eq!(seen, 7, "each is reported once");
    }
}

#[tokio::test(start_paused = true)]
async fn stored_job_keeps_its_number_attempt_and_origin() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store).build();
    let handler = async |tasks: BackgroundTasks| {
        let id = tasks.add_job(note("stuck")).await.unwrap();
        add(&tasks, "waits").await.unwrap();
        id.to_string()
    };
    let app = Router::new()
        .route("/orders/{id}", post(handler))
        .layer(runner.layer());
    let request = Request::post("/orders/7?token=secret").header("traceparent", "00-a-b-01");
    let response = app.oneshot(request.body(Body::empty()).unwrap());
    let id = read_all(response.await.unwrap()).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(log.lines(), ["stuck"]);
    let report = runner.shutdown(SECOND).await;
    assert!(report.is_clean(), "nothing is lost");
    assert_eq!(report.spilled()[0].path(), Some("/orders/7"));

    let stored = store.jobs.lock().unwrap();
    assert_eq!(stored[1].id().to_string().as_bytes(), id);
    let attempts: Vec<_> = stored.iter().map(StoredJob::attempts).collect();
    assert_eq!(attempts, [0, 1], "the one that had begun is the last");
    for job in &*stored {
        let request = job.request().unwrap();
        assert_eq!((&*request.method, &*request.path), ("POST", "/orders/7"));
        assert_eq!(job.trace()["traceparent"], "00-a-b-01");
    }
}

/// Their transaction may yet be rolled back, and a worker would run them all the same.
#[tokio::test(start_paused = true)]
async fn held_jobs_are_aborted_and_named_but_not_spilled() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let (runner, tasks) = (builder(&log, &store).build(), BackgroundTasks::new());
    let _response = runner.attach(full("hello"), tasks.clone());
    let (outer, released) = (tasks.hold(), tasks.hold());
    let inner = outer.hold();
    add(&inner, "within").await.unwrap();
    inner.release();
    add(&outer, "not released").await.unwrap();
    add(&released, "released").await.unwrap();
    released.release();
    let report = runner.shutdown(SECOND).await;
    assert_eq!(store.texts(), ["released"]);
    assert_eq!(names(report.unfinished()), ["note", "note"]);
    assert_eq!(report.spill_error(), None);
    outer.release();
    soon(runner.idle()).await;
    assert_eq!((runner.stats().aborted, runner.stats().spilled), (2, 1));
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_end_in_time_are_not_spilled() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store).build();
    for text in ["one", "two"] {
        runner.add_job(note(text)).await.unwrap();
    }
    let report = runner.shutdown(SECOND).await;
    assert_eq!((report.spilled().len(), store.texts().len()), (0, 0));
    assert_eq!(report.to_string(), "all background tasks ended");
    assert_eq!(runner.stats().completed, 2);
}

async fn stuck_and_waiting(runner: &Runner) {
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    for text in ["stuck", "second", "third"] {
        add(&tasks, text).await.unwrap();
    }
    drop(response);
    tokio::time::sleep(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn refused_job_is_unfinished_and_the_others_are_spilled() {
    let (log, store) = (Log::default(), Store::new(Mood::FailsFor("second")));
    let runner = builder(&log, &store).build();
    stuck_and_waiting(&runner).await;
    let report = runner.shutdown(SECOND).await;
    assert_eq!(store.texts(), ["third", "stuck"]);
    assert_eq!(
        (report.spilled().len(), names(report.unfinished())),
        (2, vec!["note"])
    );
    assert_eq!(report.spill_error(), Some("the store dislikes it"));
    let text = report.to_string();
    assert!(text.contains("2 jobs handed to the store:"), "{text}");
    assert!(
        text.contains("the store did not take all jobs: the store dislikes it"),
        "{text}"
    );
    assert!(text.contains("1 background task aborted:"), "{text}");
    assert!(!report.is_clean());
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn store_that_never_answers_or_panics_holds_up_no_shutdown() {
    for (mood, seconds) in [
        (Mood::NeverAnswers, 1 + 4),
        (Mood::Panics, 1),
        (Mood::Fails, 1),
    ] {
        let (log, store) = (Log::default(), Store::new(mood));
        let runner = builder(&log, &store).spill_timeout(4 * SECOND).build();
        stuck_and_waiting(&runner).await;
        let begun = Instant::now();
        let report = runner.shutdown(SECOND).await;
        assert_eq!(begun.elapsed().as_secs(), seconds);
        assert_eq!((report.unfinished().len(), report.spilled().len()), (3, 0));
        assert!(report.spill_error().is_some());
        assert_eq!(runner.stats().aborted, 3);
        assert_adds_up(&runner);
    }
}

/// Drops a shutdown while it waits for the store.
async fn drop_while_it_spills(runner: &Runner, store: &Store) {
    let shutting_down = tokio::spawn({
        let runner = runner.clone();
        async move { runner.shutdown(SECOND).await }
    });
    soon(store.asked()).await;
    shutting_down.abort();
    assert!(shutting_down.await.unwrap_err().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn shutdown_dropped_while_it_spills_loses_no_job() {
    let (log, store) = (Log::default(), Store::new(Mood::Slow(3 * SECOND)));
    let runner = builder(&log, &store).build();
    stuck_and_waiting(&runner).await;
    drop_while_it_spills(&runner, &store).await;
    let report = runner.shutdown(SECOND).await;
    assert_eq!((report.spilled().len(), report.unfinished().len()), (3, 0));
    assert_eq!(store.texts().len(), 3);
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn idle_waits_for_jobs_on_their_way_to_the_store() {
    let (log, store) = (Log::default(), Store::new(Mood::Slow(3 * SECOND)));
    let runner = builder(&log, &store).build();
    stuck_and_waiting(&runner).await;
    drop_while_it_spills(&runner, &store).await;
    let begun = Instant::now();
    runner.idle().await;
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert_eq!(runner.stats().spilled, 3);
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn spill_of_a_dropped_shutdown_ends_in_time_naming_leftovers() {
    let (log, store) = (Log::default(), Store::new(Mood::NeverAnswers));
    let runner = builder(&log, &store).spill_timeout(4 * SECOND).build();
    stuck_and_waiting(&runner).await;
    drop_while_it_spills(&runner, &store).await;
    tokio::time::sleep(5 * SECOND).await;
    assert_adds_up(&runner);
    let report = runner.shutdown(SECOND).await;
    assert_eq!(report.unfinished().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn jobs_are_spilled_though_a_task_shuts_its_runner_down() {
    let (log, store) = (Log::default(), Store::new(Mood::Slow(SECOND)));
    let runner = builder(&log, &store).build();
    for _ in 0..3 {
        runner.add_job(note("stuck")).await.unwrap();
    }
    let own = runner.clone();
    runner.add_task(async move { drop(own.shutdown(SECOND).await) });
    tokio::time::sleep(10 * SECOND).await;
    let stats = runner.stats();
    assert_eq!((stats.spilled, stats.aborted), (3, 1));
    assert_adds_up(&runner);
}

#[test]
fn caller_spills_within_its_time_where_nobody_drives_the_runtime() {
    for (mood, rows) in [(Mood::Takes, (1, 0)), (Mood::NeverAnswers, (0, 1))] {
        let (log, store) = (Log::default(), Store::new(mood));
        let idle = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let runner = builder(&log, &store)
            .runtime(idle.handle().clone())
            .spill_timeout(SECOND / 5)
            .build();
        let report = tokio::runtime::Runtime::new().unwrap().block_on(async {
            runner.add_job(note("stuck")).await.unwrap();
            soon(runner.shutdown(SECOND / 20)).await
        });
        assert_eq!((report.spilled().len(), report.unfinished().len()), rows);
        assert_adds_up(&runner);
    }
}

/// The caller begins to spill, and then the runtime does, too.
#[test]
fn runtime_that_comes_late_ends_its_own_pushes() {
    let (log, store) = (Log::default(), Store::new(Mood::Slow(3 * SECOND / 10)));
    let late = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let runner = builder(&log, &store)
        .runtime(late.handle().clone())
        .spill_timeout(2 * SECOND)
        .build();
    let report = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let tasks = BackgroundTasks::new();
        let response = runner.attach(full("hello"), tasks.clone());
        for number in 0..32 {
            add(&tasks, &number.to_string()).await.unwrap();
        }
        late.spawn(async { std::thread::sleep(11 * SECOND / 10) });
        tokio::time::sleep(SECOND / 50).await;
        let report = runner.shutdown(Duration::ZERO).await;
        drop(response);
        report
    });
    let left = report.unfinished().len();
    assert_eq!((report.spilled().len(), left), (32, 0), "{report}");
    assert_eq!(store.texts().len(), 32);
    assert_adds_up(&runner);
}

#[test]
fn store_has_the_runtime_though_shutdown_is_called_outside() {
    let (log, store) = (Log::default(), Store::new(Mood::Slow(SECOND / 100)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runner = builder(&log, &store)
        .runtime(runtime.handle().clone())
        .build();
    let report = block_on(async {
        runner.add_job(note("stuck")).await.unwrap();
        runner.shutdown(SECOND / 100).await
    });
    assert_eq!((report.spilled().len(), store.texts().len()), (1, 1));
}

#[test]
fn caller_spills_waiting_jobs_where_the_runtime_has_gone() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store).build();
    let tasks = BackgroundTasks::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let in_flight = runtime.block_on(async {
        let response = runner.attach(full("hello"), tasks.clone());
        add(&tasks, "its response").await.unwrap();
        response
    });
    drop(runtime);
    let report = block_on(runner.shutdown(SECOND / 100));
    assert_eq!(report.spilled().len(), 1);
    assert_eq!(store.texts(), ["its response"]);
    drop(in_flight);
    assert_adds_up(&runner);
}

/// Adds a job to a request that is then answered with `status`.
async fn answered(runner: &Runner, text: &str, status: StatusCode) {
    let tasks = BackgroundTasks::new();
    let mut response = full("hello");
    *response.status_mut() = status;
    let response = runner.attach(response, tasks.clone());
    add(&tasks, text).await.unwrap();
    read_all(response).await;
}

#[tokio::test(start_paused = true)]
async fn job_whose_condition_says_no_is_skipped_not_spilled() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store)
        .max_running(1)
        .run_if(|response| match response.status {
            Some(StatusCode::CONFLICT) => panic!("on purpose: a condition"),
            status => status.is_some_and(|status| status.is_success()),
        })
        .build();
    runner.add_job(note("stuck")).await.unwrap();
    tokio::time::sleep(SECOND).await;
    answered(&runner, "to be run", StatusCode::OK).await;
    answered(&runner, "not to be run", StatusCode::BAD_GATEWAY).await;
    answered(&runner, "not known", StatusCode::CONFLICT).await;
    tokio::time::sleep(SECOND).await;
    let report = runner.shutdown(SECOND).await;
    assert_eq!(store.texts(), ["to be run", "stuck"]);
    assert!(report.is_clean());
    let stats = runner.stats();
    assert_eq!((stats.spilled, stats.skipped, stats.panicked), (2, 1, 1));
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn job_without_a_response_is_skipped_not_spilled() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store).max_running(1).build();
    runner.add_job(note("stuck")).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let handler = async |tasks: BackgroundTasks| {
        add(&tasks, "no response").await.unwrap();
        pending::<()>().await;
    };
    let app = Router::new()
        .route("/", post(handler))
        .layer(runner.layer());
    let mut call = Box::pin(app.oneshot(Request::post("/").body(Body::empty()).unwrap()));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call); // the client has left
    tokio::time::sleep(SECOND).await;
    let report = runner.shutdown(SECOND).await;
    assert_eq!(store.texts(), ["stuck"]);
    assert!(report.is_clean());
    assert_eq!(runner.stats().skipped, 1);
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn job_behind_a_failed_one_is_skipped_not_spilled() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store)
        .max_running(1)
        .on_failure(OnFailure::Stop)
        .build();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    add(&tasks, "fail").await.unwrap();
    add(&tasks, "behind").await.unwrap();
    drop(response);
    runner.add_job(note("stuck")).await.unwrap(); // gets the place between the two
    tokio::time::sleep(SECOND).await;
    let report = runner.shutdown(SECOND).await;
    assert_eq!(store.texts(), ["stuck"]);
    assert!(report.is_clean());
    assert_eq!(runner.stats().skipped, 1);
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn store_error_panicking_when_shown_or_dropped_ends_no_shutdown() {
    let log = Log::default();
    let runner = Runner::builder()
        .jobs(notes(&log))
        .spill_store(Vicious::Error)
        .build();
    stuck_and_waiting(&runner).await;
    let report = runner.shutdown(SECOND).await;
    assert_eq!(report.unfinished().len(), 3);
    let error = report.spill_error().unwrap();
    assert!(error.contains("on purpose: shown"), "{error}");
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn push_that_panics_when_dropped_ends_no_shutdown() {
    for (store, unfinished) in [(Vicious::Push, 0), (Vicious::PushForEver, 3)] {
        let log = Log::default();
        let runner = Runner::builder()
            .jobs(notes(&log))
            .spill_store(store)
            .build();
        stuck_and_waiting(&runner).await;
        let report = runner.shutdown(SECOND).await;
        assert_eq!(report.unfinished().len(), unfinished);
        assert_adds_up(&runner);
    }
}

#[tokio::test(start_paused = true)]
async fn overlapping_shutdowns_report_the_same_and_store_each_job_once() {
    for (mood, rows) in [
        (Mood::FailsFor("second"), (1, 2)),
        (Mood::Slow(SECOND), (0, 3)),
    ] {
        let (log, store) = (Log::default(), Store::new(mood));
        let runner = builder(&log, &store).build();
        stuck_and_waiting(&runner).await;
        let of = |report: &ShutdownReport| (report.unfinished().len(), report.spilled().len());
        let (first, second) = tokio::join!(runner.shutdown(SECOND), runner.shutdown(SECOND));
        assert_eq!((of(&first), of(&second)), (rows, rows));
        assert_eq!(of(&runner.shutdown(SECOND).await), rows);
        assert_eq!(store.texts().len(), rows.1);
    }
}

/// Shuts down with `many` jobs, and says how long that really takes.
async fn spill_many(mood: Mood, many: usize) -> (Runner, Arc<Store>, ShutdownReport, Duration) {
    let (log, store) = (Log::default(), Store::new(mood));
    let runner = builder(&log, &store).max_running(1).build();
    for _ in 0..many {
        runner.add_job(note("stuck")).await.unwrap();
    }
    tokio::time::sleep(SECOND).await;
    let begun = std::time::Instant::now();
    let report = runner.shutdown(SECOND).await;
    (runner, store, report, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn thousands_are_spilled() {
    let (runner, store, report, _) = spill_many(Mood::Takes, 5_000).await;
    assert_eq!(report.spilled().len(), 5_000);
    let jobs = store.jobs.lock().unwrap();
    let ids: HashSet<_> = jobs.iter().map(StoredJob::id).collect();
    assert_eq!((jobs.len(), ids.len()), (5_000, 5_000), "each once");
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn store_that_is_down_does_not_slow_down_a_shutdown() {
    let (.., takes) = spill_many(Mood::Takes, 10_000).await;
    let (runner, _, report, fails) = spill_many(Mood::Fails, 10_000).await;
    assert_eq!(report.unfinished().len(), 10_000);
    assert!(fails < 10 * takes + SECOND, "{fails:?}, and {takes:?}");
    assert_adds_up(&runner);
}

#[tokio::test(start_paused = true)]
async fn cancelled_job_is_not_spilled_and_none_without_a_store() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store).build();
    runner.add_job(note("stuck")).await.unwrap();
    assert!(runner.cancel(runner.tasks()[0].id()));
    assert!(runner.shutdown(SECOND).await.spilled().is_empty());
    assert_eq!((runner.stats().aborted, store.texts().len()), (1, 0));

    let runner = Runner::builder().jobs(notes(&log)).build();
    runner.add_job(note("stuck")).await.unwrap();
    let report = runner.shutdown(SECOND).await;
    assert_eq!(
        (names(report.unfinished()), report.spilled().len()),
        (vec!["note"], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn no_connection_is_waited_for_while_it_spills() {
    let (log, store) = (Log::default(), Store::new(Mood::Takes));
    let runner = builder(&log, &store).build();
    let tasks = BackgroundTasks::new();
    let response = runner.attach(full("hello"), tasks.clone());
    let open = tasks.keep_open();
    let begun = Instant::now();
    let report = runner.shutdown(SECOND).await;
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(report.connections().count(), 1);
    drop((open, response));
}

#[tokio::test(start_paused = true)]
async fn pushes_that_hang_keep_no_other_job_from_the_store() {
    let store = Store::new(Mood::HangsForOneIn(100));
    let runner = builder(&Log::default(), &store).spill_timeout(3 * SECOND);
    let runner = runner.max_running(1).build();
    for _ in 0..5_000 {
        runner.add_job(note("stuck")).await.unwrap();
    }
    let begun = Instant::now();
    let report = runner.shutdown(Duration::ZERO).await;
    assert!(begun.elapsed() <= 3 * SECOND);
    assert_eq!(
        (report.spilled().len(), report.unfinished().len()),
        (4_950, 50)
    );
    assert_eq!(store.jobs.lock().unwrap().len(), 4_950);
    assert_adds_up(&runner);
}

/// One push may outlast the time, as it cannot be stopped; no other begins behind it.
#[tokio::test]
async fn a_store_that_blocks_its_thread_outlasts_the_time_by_one_push() {
    let push = Duration::from_millis(300);
    let store = Store::new(Mood::Blocks(push));
    let runner = builder(&Log::default(), &store).spill_timeout(Duration::from_millis(100));
    let runner = runner.max_running(1).build();
    for _ in 0..20 {
        runner.add_job(note("stuck")).await.unwrap();
    }
    let report = soon(runner.shutdown(Duration::ZERO)).await;
    let stored = store.jobs.lock().unwrap().len();
    assert!(stored <= 2, "{stored} pushes, one after another");
    assert_eq!(report.spilled().len() + report.unfinished().len(), 20);
    assert_adds_up(&runner);
}

/// The thread that polls the pushes is held; the caller's is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_push_does_not_hold_the_caller_up() {
    let store = Store::new(Mood::Blocks(2 * SECOND));
    let runner = builder(&Log::default(), &store).spill_timeout(Duration::from_millis(100));
    let runner = runner.build();
    runner.add_job(note("stuck")).await.unwrap();
    let begun = Instant::now();
    let report = tokio::spawn(async move { runner.shutdown(Duration::ZERO).await });
    let report = soon(report).await.unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert_eq!(report.unfinished().len(), 1);
    assert!(report.spill_error().unwrap().contains("had not answered"));
}
