//! Not before the end, in order, and late is fine.

use http::{Response, Version};
use http_body_util::BodyExt;
use tokio::sync::{Barrier, Notify, mpsc};
use tower_background_tasks::{BackgroundTasks, Runner, Task};

use std::{
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use crate::support::{Log, ScriptedBody, Step, full, get, open_response, read_all, respond, soon};

#[tokio::test]
async fn tasks_run_one_after_another_in_the_order_added() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = respond(&runner, get("/"), |tasks| {
        for line in ["a", "b", "c"] {
            let log = log.clone();
            tasks.add_task(async move {
                log.write(format!("{line} begins"));
                tokio::task::yield_now().await;
                log.write(format!("{line} ends"));
            });
        }
        full("hello")
    })
    .await;
    assert_eq!(read_all(response).await, "hello");
    soon(runner.idle()).await;
    assert_eq!(
        log.lines(),
        [
            "a begins", "a ends", "b begins", "b ends", "c begins", "c ends"
        ]
    );
}

#[tokio::test]
async fn alternating_async_and_blocking_tasks_keep_their_order_and_threads() {
    let (runner, log) = (Runner::new(), Log::default());
    let worker = thread::current().id();
    let kinds = [0, 0, 1, 1, 0, 1, 0, 1, 1, 1, 0];
    let response = respond(&runner, get("/"), |tasks| {
        for (line, blocking) in kinds.iter().enumerate() {
            let log = log.clone();
            let write = move || {
                // A blocking task is never run by a worker of the runtime.
                let is_blocking = thread::current().id() != worker;
                log.write(format!("{line} {}", u8::from(is_blocking)));
            };
            match blocking {
                0 => tasks.add_task(async move { write() }),
                _ => tasks.add_blocking_task(write),
            }
        }
        full("hello")
    })
    .await;
    drop(response);
    soon(runner.idle()).await;
    let lines = kinds.iter().enumerate();
    let expected: Vec<_> = lines.map(|(line, kind)| format!("{line} {kind}")).collect();
    assert_eq!(log.lines(), expected);
}

#[tokio::test]
async fn no_task_starts_while_the_body_has_more_to_give() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(log.task("task"));
        Response::new(ScriptedBody::new([
            Step::Data(b"one"),
            Step::Data(b""),
            Step::Data(b"two"),
            Step::Trailers,
        ]))
    })
    .await;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        // Everything that was spawned by now gets its turn.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        log.write(if frame.unwrap().is_data() {
            "data"
        } else {
            "trailers"
        });
    }
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["data", "data", "data", "trailers", "task"]);
    drop(body);
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 1);
}

#[tokio::test]
async fn requests_do_not_wait_for_one_another() {
    let runner = Runner::new();
    let gate = Arc::new(Notify::new());
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let first = respond(&runner, get("/1"), |tasks| {
        let gate = gate.clone();
        tasks.add_task(async move { gate.notified().await });
        full("")
    })
    .await;
    let second = respond(&runner, get("/2"), |tasks| {
        let sender = sender.clone();
        tasks.add_task(async move { sender.send(()).map_err(|_| "nobody listens") });
        full("")
    })
    .await;
    drop((first, second));
    soon(receiver.recv()).await.unwrap();
    assert_eq!(runner.stats().running, 1);
    gate.notify_one();
    soon(runner.idle()).await;
}

#[tokio::test]
async fn task_added_while_the_body_streams_runs_after_the_others() {
    let (runner, log) = (Runner::new(), Log::default());
    let mut kept = None;
    let handler_log = log.clone();
    let response = {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let response = respond(&runner, get("/"), move |tasks| {
            tasks.add_task(handler_log.task("first"));
            sender.send(tasks).unwrap();
            Response::new(ScriptedBody::new([Step::Data(b"1"), Step::Data(b"2")]))
        })
        .await;
        kept.replace(receiver.recv().await.unwrap());
        response
    };
    let tasks: BackgroundTasks = kept.unwrap();
    let mut body = response.into_body();
    body.frame().await;
    tasks.add_task(log.task("second"));
    assert_eq!(tasks.len(), 2);
    while body.frame().await.is_some() {}
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["first", "second"]);
}

#[tokio::test]
async fn task_added_by_a_task_runs_after_those_queued() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = respond(&runner, get("/"), |tasks| {
        let (again, nested_log) = (tasks.clone(), log.clone());
        tasks.add_task(async move {
            nested_log.write("outer");
            let (deeper, deeper_log) = (again.clone(), nested_log.clone());
            again.add_blocking_task(move || {
                deeper_log.write("nested");
                deeper.add_task(deeper_log.task("deeper"));
            });
        });
        tasks.add_task(log.task("queued"));
        full("hello")
    })
    .await;
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["outer", "queued", "nested", "deeper"]);
    assert_eq!(runner.stats().added, 4);
}

#[tokio::test]
async fn late_task_starts_at_once_and_only_once() {
    let (runner, log) = (Runner::new(), Log::default());
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let response = respond(&runner, get("/"), move |tasks| {
        sender.send(tasks).unwrap();
        full("hello")
    })
    .await;
    drop(response);
    let tasks: BackgroundTasks = receiver.recv().await.unwrap();
    soon(runner.idle()).await;
    for line in ["late", "later"] {
        tasks.add_task(log.task(line));
        soon(runner.idle()).await;
    }
    assert_eq!(log.lines(), ["late", "later"]);
    assert_eq!(runner.stats().completed, 2);
}

#[tokio::test]
async fn a_late_task_still_knows_how_the_response_ended() {
    let runner = Runner::new();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let response = respond(&runner, get("/"), move |tasks| {
        sender.send(tasks).unwrap();
        full("hello")
    })
    .await;
    read_all(response).await;
    let tasks: BackgroundTasks = receiver.recv().await.unwrap();
    let (sender, receiver) = std_mpsc::channel();
    tasks.add_task(Task::blocking_with_context(move |cx| {
        sender
            .send(cx.response().cloned())
            .map_err(|_| "nobody listens")
    }));
    soon(runner.idle()).await;
    let outcome = receiver.recv().unwrap().unwrap();
    assert!(outcome.is_success());
    assert_eq!(outcome.body_bytes, 5);
}

#[tokio::test]
async fn ten_thousand_tasks_run_in_order_and_let_others_run() {
    let (runner, log) = (Runner::new(), Log::default());
    let response = respond(&runner, get("/"), |tasks| {
        for line in 0..10_000 {
            tasks.add_task(log.task(line.to_string()));
        }
        full("hello")
    })
    .await;
    drop(response);
    let mut turns = 0;
    soon(async {
        while log.lines().len() < 10_000 {
            tokio::task::yield_now().await;
            turns += 1;
        }
    })
    .await;
    assert!(
        turns > 10,
        "the batch held its worker: {turns} turns for others"
    );
    let expected: Vec<_> = (0..10_000).map(|line| line.to_string()).collect();
    assert_eq!(log.lines(), expected);
}

#[tokio::test]
async fn async_tasks_of_different_requests_run_side_by_side() {
    let (runner, all) = (Runner::new(), Arc::new(Barrier::new(300)));
    for _ in 0..300 {
        let (response, tasks) = open_response(&runner);
        let all = Arc::clone(&all);
        tasks.add_task(async move {
            all.wait().await;
        });
        drop(response);
    }
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 300);
}

#[tokio::test]
async fn blocking_tasks_of_different_requests_run_side_by_side() {
    let (runner, all) = (Runner::new(), Arc::new(std::sync::Barrier::new(64)));
    for _ in 0..64 {
        let (response, tasks) = open_response(&runner);
        let all = Arc::clone(&all);
        tasks.add_blocking_task(move || {
            all.wait();
        });
        drop(response);
    }
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 64);
}

#[tokio::test]
async fn first_task_goes_behind_the_connection_only_over_http2() {
    for (version, expected) in [
        (Version::HTTP_11, ["task", "connection"]),
        (Version::HTTP_2, ["connection", "task"]),
    ] {
        let (runner, log) = (Runner::new(), Log::default());
        let mut request = get("/");
        *request.version_mut() = version;
        let response = respond(&runner, request, |tasks| {
            tasks.add_task(log.task("task"));
            full("hello")
        })
        .await;
        drop(response);
        let connection = tokio::spawn(log.task("connection"));
        soon(runner.idle()).await;
        soon(connection).await.unwrap();
        assert_eq!(log.lines(), expected, "{version:?}");
    }
}

#[tokio::test]
async fn late_task_goes_behind_what_the_runtime_runs_next() {
    let (runner, log) = (Runner::new(), Log::default());
    runner.add_task(log.task("task"));
    let connection = tokio::spawn(log.task("connection"));
    soon(runner.idle()).await;
    soon(connection).await.unwrap();
    assert_eq!(log.lines(), ["connection", "task"]);
}
