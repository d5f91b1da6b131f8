//! What a task's times mean, on a paused clock. The binary `observe` has this file too.

use std::{
    convert::Infallible,
    future::{pending, ready},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use tokio::{runtime::Builder, task::yield_now, time::advance};
use tower::{Layer, ServiceExt, service_fn};
use tower_background_tasks::{BackgroundTasks, ResponseBody, Runner, TaskInfo};

const SECOND: Duration = Duration::from_secs(1);

/// Calls `test` with a runner that nobody watches, and with one that has an observer.
pub(crate) fn with_and_without_an_observer(test: &impl AsyncFn(&Runner)) {
    for has_observer in [false, true] {
        println!("has an observer: {has_observer}");
        let runner = match has_observer {
            true => Runner::builder().on_task_end(|_| ()).build(),
            false => Runner::new(),
        };
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(test(&runner));
    }
}

/// Moves the paused clock within a poll.
fn pass(time: Duration) {
    let _ = advance(time).now_or_never();
}

async fn ten_turns() {
    for _ in 0..10 {
        yield_now().await;
    }
}

fn only(runner: &Runner) -> TaskInfo {
    let [task] = &runner.tasks()[..] else {
        panic!("not one task: {:?}", runner.tasks());
    };
    task.clone()
}

/// The response to a request, and the request's tasks.
async fn response_after(
    runner: &Runner,
    handler: impl Fn(&BackgroundTasks),
) -> (Response<ResponseBody<String>>, BackgroundTasks) {
    let tasks = |request: &Request<()>| BackgroundTasks::from_extensions(request.extensions());
    let (keep, kept) = std::sync::mpsc::channel();
    let handler = service_fn(|request: Request<()>| {
        let tasks = tasks(&request).unwrap();
        handler(&tasks);
        keep.send(tasks).unwrap();
        ready(Ok::<_, Infallible>(Response::new("hello".to_owned())))
    });
    let service = runner.layer().layer(handler);
    let response = service.oneshot(Request::new(())).await.unwrap();
    (response, kept.recv().unwrap())
}

pub(crate) async fn age_counts_from_the_adding(runner: &Runner) {
    let handler = |tasks: &BackgroundTasks| {
        pass(5 * SECOND); // the handler takes its time
        tasks.add_task(pending::<()>());
    };
    let (response, _) = response_after(runner, handler).await;
    pass(SECOND);
    assert_eq!(only(runner).age(), SECOND, "waiting");
    drop(response);
    ten_turns().await;
    pass(SECOND);
    assert_eq!(only(runner).age(), 2 * SECOND, "running");
}

pub(crate) async fn age_counts_from_an_adding_while_streaming(runner: &Runner) {
    let (response, tasks) = response_after(runner, |_| ()).await;
    pass(5 * SECOND); // the body takes its time
    tasks.add_task(pending::<()>());
    pass(SECOND);
    assert_eq!(only(runner).age(), SECOND);
    drop(response);
}

pub(crate) async fn running_for_counts_from_the_begin(runner: &Runner) {
    let add = |tasks: &BackgroundTasks| tasks.add_task(pending::<()>());
    drop(response_after(runner, add).await);
    pass(5 * SECOND); // the worker takes its time
    ten_turns().await;
    pass(SECOND);
    assert_eq!(only(runner).running_for(), Some(SECOND));
}

pub(crate) async fn running_for_leaves_out_earlier_tasks(runner: &Runner) {
    let add = |tasks: &BackgroundTasks| {
        tasks.add_task(async { pass(5 * SECOND) });
        tasks.add_task(pending::<()>());
    };
    drop(response_after(runner, add).await);
    ten_turns().await;
    pass(SECOND);
    assert_eq!(only(runner).running_for(), Some(SECOND));
}
