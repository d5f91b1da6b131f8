//! Work that outlives its client: parts of handlers, and whole handlers.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::{Notify, oneshot};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_background_tasks::{
    BackgroundTasks, Order, ResponseBody, ResponseEnd, Runner, Task, TaskEnd, TaskState,
};

use crate::support::{
    Log, Outcomes, PanicsWhenDropped, block_on, full, get, open_response, read_all, respond, soon,
    turns, until,
};

#[tokio::test]
async fn work_goes_on_when_its_handler_is_dropped() {
    for polled in [false, true] {
        let (runner, log) = (Runner::new(), Log::default());
        let (_response, tasks) = open_response(&runner);
        let (go_on, waits) = oneshot::channel::<()>();
        let shielded = log.clone();
        let mut shield = Box::pin(tasks.shield(async move {
            shielded.write("begun");
            let _ = waits.await;
            shielded.write("done");
        }));
        if polled {
            assert!(shield.as_mut().now_or_never().is_none());
        }
        until(|| log.lines() == ["begun"]).await;
        drop(shield);
        turns(3).await;
        drop(go_on);
        soon(runner.idle()).await;
        assert_eq!(log.lines(), ["begun", "done"]);
        assert_eq!((runner.stats().added, runner.stats().completed), (1, 1));
        assert!(runner.tasks().is_empty());
    }
}

#[tokio::test]
async fn the_output_comes_back_and_need_not_be_a_result() {
    let runner = Runner::new();
    let (_response, tasks) = open_response(&runner);
    let output = tasks.shield(async { (7, String::from("seven")) });
    assert_eq!(soon(output).await, Ok((7, "seven".into())));
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 1);
}

#[tokio::test]
async fn shielded_work_is_listed_and_named_with_its_request() {
    async fn save_order() {
        pending::<()>().await;
    }
    let runner = Runner::new();
    let response = respond(&runner, get("/orders"), |tasks| {
        drop(tasks.shield(save_order()));
        drop(tasks.shield_named("charge", pending::<()>()));
        full("hello")
    });
    let _response = response.await;
    until(|| runner.stats().running == 2).await;
    let rows = runner.tasks();
    assert!(rows[0].name().ends_with("save_order"), "{}", rows[0]);
    assert_eq!(
        (rows[1].name(), rows[1].path()),
        ("charge", Some("/orders"))
    );
    assert_eq!(rows[1].state(), TaskState::Running);
    assert!(rows[1].location().file().ends_with("shield.rs"));
    let report = runner.shutdown(Duration::ZERO).await;
    assert_eq!(report.unfinished().len(), 2);
}

#[tokio::test]
async fn a_panic_resumes_in_the_awaiter_and_ends_the_task() {
    let runner = Runner::new();
    let (_response, tasks) = open_response(&runner);
    let shield = tasks.shield(async { panic!("on purpose: shielded work") });
    let panicked = AssertUnwindSafe(soon(shield)).catch_unwind().await;
    let payload = panicked.map(|_: Result<(), _>| ()).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose: shielded work"));
    soon(runner.idle()).await;
    assert_eq!((runner.stats().panicked, runner.stats().added), (1, 1));
}

#[tokio::test]
async fn a_panic_without_an_awaiter_is_told_once() {
    let log = Log::default();
    let told = log.clone();
    let runner = Runner::builder()
        .on_task_end(move |report| told.write(report.end().to_string()))
        .build();
    let (_response, tasks) = open_response(&runner);
    drop(tasks.shield(async { panic!("on purpose: shielded work") }));
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["panicked: on purpose: shielded work"]);
}

#[tokio::test]
async fn an_output_that_panics_when_dropped_ends_the_task() {
    let runner = Runner::new();
    let (_response, tasks) = open_response(&runner);
    let output = (7, PanicsWhenDropped);
    drop(tasks.shield(async { output }));
    soon(runner.idle()).await;
    assert_eq!(runner.stats().panicked, 1);
}

#[tokio::test]
async fn an_operators_cancel_is_told_to_the_awaiter() {
    let runner = Runner::new();
    let (_response, tasks) = open_response(&runner);
    let mut shield = pin!(tasks.shield(pending::<()>()));
    assert!(shield.as_mut().now_or_never().is_none());
    until(|| runner.stats().running == 1).await;
    assert!(runner.cancel(runner.tasks()[0].id()));
    assert!(soon(shield).await.is_err());
    soon(runner.idle()).await;
    assert_eq!((runner.stats().aborted, runner.stats().added), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_it_and_then_aborts_it() {
    for finishes in [true, false] {
        let runner = Runner::new();
        let (_response, tasks) = open_response(&runner);
        let shield = tasks.shield(async move {
            let seconds = if finishes { 5 } else { 50 };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        });
        let report = runner.shutdown(Duration::from_secs(10)).await;
        assert_eq!(report.is_clean(), finishes);
        assert_eq!(soon(shield).await.is_ok(), finishes);
    }
}

#[test]
fn work_whose_runtime_is_gone_is_told_as_aborted() {
    let runner = Runner::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let entered = runtime.enter();
    let (response, tasks) = open_response(&runner);
    drop(response);
    let shield = tasks.shield(pending::<()>());
    drop(entered);
    drop(runtime);
    assert!(block_on(shield).is_err());
    assert_eq!(runner.stats().aborted, 1);
}

#[tokio::test(start_paused = true)]
async fn no_limit_or_timeout_of_tasks_holds_for_it() {
    let runner = Runner::builder()
        .max_running(1)
        .max_pending(1)
        .task_timeout(Duration::from_secs(1))
        .build();
    let (_response, tasks) = open_response(&runner);
    runner.add_task(Task::new(pending::<()>()).timeout(Duration::MAX));
    until(|| runner.stats().running == 1).await;
    runner.add_task(async {}); // takes the only place to wait
    let work = || tokio::time::sleep(Duration::from_secs(5));
    let (first, second) = (tasks.shield(work()), tasks.shield(work()));
    until(|| runner.stats().running == 3).await;
    assert_eq!(runner.stats().pending, 1);
    assert!(runner.try_add_task(async {}).is_err());
    assert_eq!((soon(first).await, soon(second).await), (Ok(()), Ok(())));
    until(|| runner.stats().completed == 2).await;
    assert_eq!((runner.stats().pending, runner.stats().running), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn no_limit_holds_for_it_in_a_concurrent_runner() {
    let runner = Runner::builder()
        .order(Order::Concurrent)
        .max_running(1)
        .build();
    let (_response, tasks) = open_response(&runner);
    runner.add_task(pending::<()>());
    until(|| runner.stats().running == 1).await;
    assert_eq!(soon(tasks.shield(async { 7 })).await, Ok(7));
}

#[tokio::test]
async fn without_a_runner_it_runs_in_place() {
    let (tasks, log) = (BackgroundTasks::new(), Log::default());
    let shield = tasks.shield(log.task("done"));
    turns(3).await;
    assert!(log.lines().is_empty());
    assert_eq!(shield.await, Ok(()));
    drop(tasks.shield(log.task("dropped")));
    turns(3).await;
    assert_eq!(log.lines(), ["done"]);
}

#[tokio::test]
async fn once_the_runner_has_shut_down_it_runs_in_place() {
    let (runner, log) = (Runner::new(), Log::default());
    let (_response, tasks) = open_response(&runner);
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
    assert_eq!(tasks.shield(log.task("done")).await, Ok(()));
    assert_eq!(log.lines(), ["done"]);
    assert_eq!(runner.stats().added, 0);
}

tokio::task_local! {
    static TENANT: &'static str;
}

#[tokio::test]
async fn it_finds_the_requests_queue_and_what_surrounds_tasks() {
    let log = Log::default();
    let runner = Runner::builder()
        .around(|_, next| TENANT.sync_scope("ferris", || next.run()))
        .build();
    let response = respond(&runner, get("/"), |tasks| {
        let shielded = log.clone();
        drop(tasks.shield(async move {
            tokio::task::yield_now().await;
            let tasks = BackgroundTasks::current().unwrap();
            tasks.add_task(shielded.task(format!("mail of {}", TENANT.get())));
        }));
        full("hello")
    });
    let response = response.await;
    soon(runner.idle()).await;
    assert!(log.lines().is_empty(), "it waits for its response");
    assert!(BackgroundTasks::current().is_none());
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["mail of ferris"]);
}

struct BadWaker;

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        panic!("on purpose: a waker");
    }
}

#[tokio::test]
async fn a_waker_of_the_awaiter_that_panics_harms_nobody() {
    let runner = Runner::new();
    let (_response, tasks) = open_response(&runner);
    let mut shield = pin!(tasks.shield(turns(3)));
    let waker = Waker::from(Arc::new(BadWaker));
    let mut cx = Context::from_waker(&waker);
    assert!(shield.as_mut().poll(&mut cx).is_pending());
    soon(runner.idle()).await;
    assert_eq!(runner.stats().completed, 1);
    assert_eq!(soon(shield).await, Ok(()));
}

type Answer = Result<Response<ResponseBody<Full<Bytes>>>, Infallible>;

/// A handler behind the detached layer that waits until what comes back first is dropped, and its
/// response.
/// A handler that shields its commit, with a receipt that is held until then, and whose client
/// leaves during the commit. Returns what was sent.
async fn sent_though_the_client_left(has_condition: bool) -> Vec<String> {
    let (runner, log, commit) = (Runner::new(), Log::default(), Arc::new(Notify::new()));
    let (sent, commits) = (log.clone(), commit.clone());
    let handler = service_fn(move |request: Request<()>| {
        let (sent, commits) = (sent.clone(), commits.clone());
        async move {
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            let held = tasks.hold();
            let receipt = Task::new(async move { sent.write("receipt") });
            held.add_task(match has_condition {
                true => receipt.run_if(|_| true),
                false => receipt,
            });
            let committing = async move {
                commits.notified().await;
                held.release();
            };
            let _ = tasks.shield(committing).await;
            Ok::<_, Infallible>(full("ordered"))
        }
    });
    let mut response = Box::pin(runner.layer().layer(handler).oneshot(get("/order")));
    assert!(response.as_mut().now_or_never().is_none());
    drop(response);
    commit.notify_one();
    soon(runner.idle()).await;
    log.lines()
}

#[tokio::test]
async fn a_held_task_runs_though_the_client_left_during_the_commit_if_its_condition_holds() {
    assert_eq!(sent_though_the_client_left(true).await, ["receipt"]);
    assert!(sent_though_the_client_left(false).await.is_empty());
}

fn detached(
    runner: &Runner,
    outcomes: &Outcomes,
    status: StatusCode,
) -> (oneshot::Sender<()>, impl Future<Output = Answer>) {
    let (go_on, waits) = oneshot::channel::<()>();
    let (mut waits, task) = (Some(waits), outcomes.task());
    let mut task = Some(task);
    let service = service_fn(move |request: Request<()>| {
        let (waits, task) = (waits.take().unwrap(), task.take().unwrap());
        async move {
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            let _ = waits.await;
            tasks.add_task(task);
            let mut response = full("hello");
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let service = runner.layer().detached().layer(service);
    (go_on, service.oneshot(get("/order")))
}

#[tokio::test]
async fn a_detached_handler_goes_on_and_its_tasks_run() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let (go_on, response) = detached(&runner, &outcomes, StatusCode::CREATED);
    let mut response = Box::pin(response);
    assert!(response.as_mut().now_or_never().is_none());
    until(|| runner.stats().running == 1).await;
    let handler = &runner.tasks()[0];
    assert_eq!(
        (handler.name(), handler.path()),
        ("handler", Some("/order"))
    );
    drop(response);
    turns(3).await;
    drop(go_on);
    let outcome = outcomes.only(&runner).await;
    assert_eq!(outcome.end, ResponseEnd::Aborted);
    assert_eq!(outcome.status, Some(StatusCode::CREATED));
    assert!(outcome.is_success());
    assert_eq!(runner.stats().completed, 2);
}

#[tokio::test]
async fn a_detached_response_reaches_the_client_that_stays() {
    let (runner, mut outcomes) = (Runner::new(), Outcomes::new());
    let (go_on, response) = detached(&runner, &outcomes, StatusCode::CREATED);
    drop(go_on);
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    turns(3).await;
    assert_eq!(runner.stats().completed, 1, "only the handler");
    assert_eq!(read_all(response).await, "hello");
    assert_eq!(outcomes.only(&runner).await.end, ResponseEnd::Completed);
}

#[tokio::test]
async fn an_aborted_handler_is_answered_with_a_503() {
    let (runner, outcomes) = (Runner::new(), Outcomes::new());
    let (_go_on, response) = detached(&runner, &outcomes, StatusCode::CREATED);
    let mut response = Box::pin(response);
    assert!(response.as_mut().now_or_never().is_none());
    until(|| runner.stats().running == 1).await;
    assert!(runner.cancel(runner.tasks()[0].id()));
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(read_all(response).await.is_empty());
    assert_eq!(runner.stats().aborted, 1);
}

#[tokio::test]
async fn a_detached_handlers_error_and_panic_come_through() {
    let runner = Runner::new();
    let fails = service_fn(async |_: Request<()>| Err::<Response<Full<Bytes>>, _>("failed"));
    let service = runner.layer().detached().layer(fails);
    assert_eq!(soon(service.oneshot(get("/"))).await.unwrap_err(), "failed");

    let panics = service_fn(
        async |_: Request<()>| -> Result<Response<Full<Bytes>>, Infallible> {
            panic!("on purpose: a handler")
        },
    );
    let mut service = runner.layer().detached().layer(panics);
    let response = AssertUnwindSafe(soon(service.call(get("/"))));
    assert!(response.catch_unwind().await.is_err());
    soon(runner.idle()).await;
    assert_eq!((runner.stats().panicked, runner.stats().completed), (1, 1));
}

#[tokio::test]
async fn tasks_of_a_detached_handler_that_panics_are_skipped() {
    let (runner, log) = (Runner::new(), Log::default());
    let mail = log.clone();
    let panics = service_fn(move |request: Request<()>| {
        let mail = mail.clone();
        async move {
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            tasks.add_task(mail.task("mail"));
            poll_fn(|_| -> Poll<()> { panic!("on purpose: a handler") }).await;
            Ok::<_, Infallible>(full("hello"))
        }
    });
    let mut service = runner.layer().detached().layer(panics);
    drop(service.call(get("/")));
    soon(runner.idle()).await;
    assert!(log.lines().is_empty());
    assert_eq!((runner.stats().panicked, runner.stats().skipped), (1, 1));
}

#[tokio::test]
async fn nothing_is_kept_once_shielded_work_has_ended() {
    let kept = Arc::new(());
    let observer = Arc::clone(&kept);
    let runner = Runner::builder()
        .on_task_end(move |report| {
            let _ = &observer;
            assert!(matches!(report.end(), TaskEnd::Completed));
        })
        .build();
    let (response, tasks) = open_response(&runner);
    let shield = tasks.shield(async {});
    drop((response, tasks));
    soon(runner.idle()).await;
    drop(runner);
    assert_eq!(soon(shield).await, Ok(()));
    until(|| Arc::strong_count(&kept) == 1).await;
}
