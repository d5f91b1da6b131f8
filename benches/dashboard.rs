//! What does the dashboard cost me? While nobody looks, over the same requests without it; and while
//! 50 people look, in each second.

#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::{future::pending, future::ready, time::Instant};

use axum::{Router, routing::get};
use common::{
    is_smoke, median, rounds,
    sides::{BoxSide, runtime, side},
    time,
};
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, Service};
use tower_background_tasks::{BackgroundTasks, DashboardBody, Runner, Task};

fn ours(runner: &Runner, tasks: usize) -> BoxSide {
    let handler = async move |queue: BackgroundTasks| {
        for _ in 0..tasks {
            queue.add_task(ready(()));
        }
        "hello"
    };
    side(
        runner
            .layer()
            .layer(Router::new().route("/", get(handler)).with_state(())),
    )
}

/// Prints what a task costs more, in nanoseconds.
fn unwatched(tasks: usize) {
    let runtime = runtime();
    let (without, with) = (Runner::new(), Runner::new());
    drop(with.dashboard()); // it counts from now on
    let mut sides = [ours(&without, tasks), ours(&with, tasks)];
    let requests = if is_smoke() { 10 } else { 4_000 / tasks };
    let mut round = |first: usize| {
        let mut nanos = [0.0; 2];
        for turn in [first % 2, (first + 1) % 2] {
            let spent = time(|| runtime.block_on(sides[turn].requests(requests)));
            nanos[turn] = spent.as_secs_f64() * 1e9 / (requests * tasks) as f64;
        }
        (nanos[1] - nanos[0], nanos[1] / nanos[0])
    };
    let rounds: Vec<_> = (0..rounds(301)).map(&mut round).skip(1).collect();
    let more = median(rounds.iter().map(|(more, _)| *more).collect());
    let ratio = median(rounds.iter().map(|(_, ratio)| *ratio).collect());
    println!(
        "nobody looks, {tasks} tasks a request: {more:.0} ns a task more, {ratio:.3} of the request"
    );
}

/// A runner with as much to show as a page shows.
async fn busy() -> Runner {
    let runner = Runner::builder()
        .route(|request| Some(request.uri.path()))
        .build();
    drop(runner.dashboard());
    let handler = async |tasks: BackgroundTasks| {
        tasks.add_task(Task::new(ready(Err::<(), _>("no mail server"))).named("mail"));
        tasks.add_task(Task::new(pending::<()>()).named("stays"));
        tasks.add_task(ready(())); // waits
    };
    let mut app = runner
        .layer()
        .layer(Router::new().fallback(handler).with_state(()));
    for number in 0..10_000 {
        let path = format!("/route/{}", number % 100);
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = app.call(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    while runner.stats().failed < 10_000 {
        tokio::task::yield_now().await;
    }
    runner
}

async fn next(body: &mut DashboardBody) -> usize {
    let frame = body.frame().await.unwrap().unwrap();
    frame.into_data().unwrap().len()
}

/// Prints what each second costs. Tokio's clock is stopped, so that seconds pass at once.
fn watched(viewers: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let runner = busy().await;
        let mut dashboard = runner.dashboard();
        let mut bodies = Vec::new();
        for _ in 0..viewers {
            let request = Request::get("/events").body(()).unwrap();
            let response: Response<DashboardBody> = dashboard.call(request).await.unwrap();
            bodies.push(response.into_body());
        }
        let (mut millis, mut bytes) = (Vec::new(), 0);
        for _ in 0..rounds(101) {
            // Tokio's clock goes on by itself once all wait.
            let begun = Instant::now();
            let all = join_all(bodies.iter_mut().map(next)).await;
            bytes = all[0];
            millis.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let millis = median(millis);
        println!("{viewers} look at 10,000 tasks that run, 10,000 that wait, 100 routes:");
        println!("  {millis:.2} ms each second, for {bytes} bytes to each");
    });
}

fn main() {
    for tasks in [1, 8] {
        unwatched(tasks);
    }
    for viewers in [1, 50] {
        watched(viewers);
    }
}
