//! What is used again: queues for the next request, tasks of the runtime for the next batch, threads for the next blocking task.

use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use http::StatusCode;
use tokio::{
    runtime::Handle,
    task::{spawn_blocking, yield_now},
};
use tower_background_tasks::{BackgroundTasks, OnFailure, Runner, Task, TaskEnd};

use crate::support::{Log, full, get, read_all, respond, soon};

/// One request with one task, until the task has ended.
async fn request(runner: &Runner, path: &str) {
    let response = respond(runner, get(path), |tasks| {
        tasks.add_task(async {});
        full("hello")
    });
    read_all(response.await).await;
    soon(runner.idle()).await;
}

#[tokio::test]
async fn a_request_knows_nothing_of_the_one_before() {
    let runner = Runner::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for (path, status, body) in [("/first", 404, "gone"), ("/second", 200, "here it is")] {
        let seen = Arc::clone(&seen);
        let response = respond(&runner, get(path), move |tasks| {
            let seen = Arc::clone(&seen);
            tasks.add_task(Task::with_context(|cx| async move {
                let response = cx.response().unwrap();
                let status = response.status.unwrap().as_u16();
                seen.lock().unwrap().push((status, response.body_bytes));
            }));
            let mut response = full(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        });
        let response = response.await;
        let info = &runner.tasks()[0];
        assert_eq!(info.path(), Some(path));
        read_all(response).await;
        soon(runner.idle()).await;
    }
    assert_eq!(*seen.lock().unwrap(), [(404, 4), (200, 10)]);
}

#[tokio::test]
async fn a_task_of_no_request_knows_nothing_of_a_request_before() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let runner = Runner::builder()
        .on_task_end(move |report| {
            let method = report.method().map(ToString::to_string);
            told.lock()
                .unwrap()
                .push((method, report.path().map(String::from)));
        })
        .build();
    request(&runner, "/first").await;
    runner.add_task(async {});
    soon(runner.idle()).await;
    let first = (Some("GET".into()), Some("/first".into()));
    assert_eq!(*seen.lock().unwrap(), [first, (None, None)]);
}

#[tokio::test]
async fn nor_does_it_know_a_response_before_it_has_its_own() {
    let runner = Runner::new();
    request(&runner, "/first").await;
    let queue = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&queue);
    let response = respond(&runner, get("/second"), move |tasks: BackgroundTasks| {
        tasks.add_task(Task::with_context(|cx| async move {
            assert!(cx.response().is_none());
        }));
        *keep.lock().unwrap() = Some(tasks);
        full("hello")
    });
    let response = response.await;
    let queue = queue.lock().unwrap().take().unwrap();
    let ends = queue.run().await; // by hand, before the response has ended
    assert!(matches!(ends[..], [TaskEnd::Completed]), "{ends:?}");
    drop(response);
}

#[tokio::test]
async fn a_failure_does_not_stop_the_tasks_of_the_next_request() {
    let runner = Runner::builder().on_failure(OnFailure::Stop).build();
    for _ in 0..2 {
        let response = respond(&runner, get("/"), |tasks| {
            tasks.add_task(async {});
            tasks.add_task(async { Err::<(), _>("on purpose") });
            full("hello")
        });
        read_all(response.await).await;
        soon(runner.idle()).await;
    }
    let stats = runner.stats();
    assert_eq!((stats.completed, stats.failed, stats.skipped), (2, 2, 0));
}

#[tokio::test]
async fn a_queue_that_is_still_held_is_nobody_elses() {
    let (runner, log) = (Runner::new(), Log::default());
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let response = respond(&runner, get("/kept"), move |tasks: BackgroundTasks| {
        *keep.lock().unwrap() = Some(tasks);
        full("hello")
    });
    read_all(response.await).await;
    for _ in 0..3 {
        request(&runner, "/another").await;
    }
    let kept = kept.lock().unwrap().take().unwrap();
    kept.add_task(log.task("late"));
    assert_eq!(runner.tasks()[0].path(), Some("/kept"));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["late"]);
    assert_eq!(runner.stats().added, 4);
}

#[tokio::test]
async fn batches_side_by_side_have_a_task_of_the_runtime_each() {
    let (runner, log) = (Runner::new(), Log::default());
    request(&runner, "/").await; // leaves a task of the runtime that waits
    for number in 0..3 {
        let log = log.clone();
        let response = respond(&runner, get("/"), move |tasks| {
            tasks.add_task(log.task(format!("begins {number}")));
            tasks.add_task(std::future::pending::<()>());
            full("hello")
        });
        read_all(response.await).await;
    }
    soon(async {
        while log.lines().len() < 3 || runner.stats().running < 3 {
            yield_now().await;
        }
    })
    .await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 3);
    let report = runner.shutdown(Duration::ZERO).await;
    assert_eq!(report.unfinished().len(), 3);
}

#[tokio::test]
async fn a_blocking_task_does_not_wait_behind_another_request_s() {
    let runner = Runner::new();
    // Short ones, so that a thread looks out for the next.
    for _ in 0..50 {
        let (tell, told) = mpsc::channel();
        runner.add_blocking_task(move || tell.send(()).unwrap());
        told.recv().unwrap();
    }
    let (release, held) = mpsc::channel::<()>();
    runner.add_blocking_task(move || held.recv().unwrap());
    let (tell, told) = mpsc::channel();
    for number in 0..10 {
        let tell = tell.clone();
        runner.add_blocking_task(move || tell.send(number).unwrap());
    }
    for _ in 0..10 {
        told.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    release.send(()).unwrap();
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 61);
}

#[tokio::test]
async fn blocking_tasks_of_different_requests_run_side_by_side_however_many_come_at_once() {
    let (runner, all) = (Runner::new(), Arc::new(Barrier::new(64)));
    for _ in 0..2 {
        for _ in 0..64 {
            let all = Arc::clone(&all);
            runner.add_blocking_task(move || {
                all.wait();
            });
        }
        soon(runner.idle()).await;
    }
    assert_eq!(runner.stats().completed, 128);
}

#[test]
fn blocking_tasks_without_an_end_leave_the_pool_to_others_in_between() {
    /// Each is a batch of its own.
    fn add_forever(runner: &Runner, stop: &Arc<AtomicBool>) {
        let (again, stop) = (runner.clone(), Arc::clone(stop));
        runner.add_blocking_task(move || {
            if !stop.load(Relaxed) {
                add_forever(&again, &stop);
            }
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (runner, stop) = (Runner::new(), Arc::new(AtomicBool::new(false)));
    runtime.block_on(async {
        add_forever(&runner, &stop);
        for _ in 0..3 {
            soon(spawn_blocking(|| ())).await.unwrap();
        }
        assert!(runner.stats().completed > 0);
        stop.store(true, Relaxed);
        soon(runner.idle()).await;
    });
    assert_eq!(runner.stats().added, runner.stats().completed);
}

#[tokio::test]
async fn async_tasks_of_different_requests_run_side_by_side_however_many_come_at_once() {
    let (runner, all) = (Runner::new(), Arc::new(tokio::sync::Barrier::new(300)));
    for _ in 0..2 {
        for _ in 0..300 {
            let all = Arc::clone(&all);
            runner.add_task(async move {
                all.wait().await;
            });
        }
        soon(runner.idle()).await;
    }
    assert_eq!(runner.stats().completed, 600);
}

#[test]
fn a_rush_that_waits_for_a_runtime_that_goes_away_ends_aborted_once() {
    let held = Arc::new(());
    let runner = Runner::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..300 {
            let held = Arc::clone(&held);
            runner.add_task(async move { drop(held) });
        }
        assert_eq!(runner.stats().pending, 300);
    });
    drop(runtime);
    let stats = runner.stats();
    assert_eq!((stats.added, stats.aborted), (300, 300));
    assert_eq!((stats.pending, stats.running), (0, 0));
    assert_eq!(Arc::strong_count(&held), 1, "a task is still there");
}

#[tokio::test]
async fn blocking_tasks_reached_by_the_fast_path_never_run_on_the_worker() {
    let (runner, worker) = (Runner::new(), thread::current().id());
    let on_worker = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&on_worker);
    let response = respond(&runner, get("/"), move |tasks| {
        let note = || {
            let seen = Arc::clone(&seen);
            move || seen.lock().unwrap().push(thread::current().id() == worker)
        };
        tasks.add_task(async {});
        tasks.add_blocking_task(note());
        tasks.add_task(async { Err::<(), _>("on purpose") });
        tasks.add_blocking_task(note());
        let (again, late) = (tasks.clone(), note());
        tasks.add_task(async move { again.add_blocking_task(late) });
        full("hello")
    });
    read_all(response.await).await;
    soon(runner.idle()).await;
    assert_eq!(*on_worker.lock().unwrap(), [false; 3]);
}

#[tokio::test]
async fn a_blocking_task_whose_async_head_was_cancelled_never_runs_on_the_worker() {
    for timeout in [None, Some(Duration::from_secs(5))] {
        let (runner, worker) = (Runner::new(), thread::current().id());
        let (id, seen) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (added, on_worker) = (Arc::clone(&id), Arc::clone(&seen));
        let response = respond(&runner, get("/"), move |tasks| {
            let mut head = Task::new(async {});
            if let Some(timeout) = timeout {
                head = head.timeout(timeout);
            }
            *added.lock().unwrap() = Some(tasks.try_add_task(head).unwrap());
            let on_worker = Arc::clone(&on_worker);
            tasks.add_blocking_task(move || {
                *on_worker.lock().unwrap() = Some(thread::current().id() == worker);
            });
            full("hello")
        });
        read_all(response.await).await;
        let id = id.lock().unwrap().unwrap();
        assert!(runner.cancel(id));
        soon(runner.idle()).await;
        assert_eq!(*seen.lock().unwrap(), Some(false));
    }
}

#[test]
fn blocking_tasks_in_a_row_do_not_keep_a_runtime_whose_clock_is_paused_from_going_away() {
    fn again(tasks: &BackgroundTasks) {
        thread::sleep(Duration::from_millis(1));
        let next = tasks.clone();
        tasks.add_blocking_task(move || again(&next));
    }
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let (runner, (began, has_begun)) = (Runner::new(), mpsc::channel());
        runtime.block_on(async {
            let response = respond(&runner, get("/"), move |tasks| {
                let (tasks_, began) = (tasks.clone(), began.clone());
                tasks.add_blocking_task(move || {
                    began.send(()).unwrap();
                    again(&tasks_);
                });
                full("hello")
            });
            read_all(response.await).await;
        });
        has_begun.recv().unwrap();
        drop(runtime);
        done.send(()).unwrap();
    });
    is_done
        .recv_timeout(Duration::from_secs(20))
        .expect("the runtime goes away");
}

#[tokio::test]
async fn a_runner_that_has_shut_down_leaves_no_task_of_the_runtime() {
    let runner = Runner::new();
    request(&runner, "/").await;
    assert!(runner.shutdown(Duration::from_secs(1)).await.is_clean());
    soon(async {
        while Handle::current().metrics().num_alive_tasks() > 0 {
            yield_now().await;
        }
    })
    .await;
}
