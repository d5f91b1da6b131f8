//! How does it grow with the load? The cost of a task with 1 to 10,000 of them in each request, and
//! requests a second with 1 to 8 worker threads, beside `tokio::spawn`.
//!
//!     cargo bench --bench scale
//!
//! Both sides take turns, round by round. Each figure is the median over the rounds, and so is each
//! ratio: ours over `tokio::spawn`. `growth` is about tasks that wait.

#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::{
    convert::Infallible,
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use common::{is_smoke, median, rounds, time};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};
use tower::{Layer, Service};
use tower_background_tasks::{BackgroundTasks, Runner};

/// Tasks that have run.
static RAN: AtomicUsize = AtomicUsize::new(0);

/// The task of all measurements. It does next to nothing: what is measured is what surrounds it.
async fn task() {
    RAN.fetch_add(1, Ordering::Relaxed);
}

/// Waits until `tasks` more have run than `before`.
async fn until_ran(before: usize, tasks: usize) {
    while RAN.load(Ordering::Relaxed) < before + tasks {
        yield_now().await;
    }
}

fn spawned(tasks: usize) -> Router {
    let handler = async move || {
        for _ in 0..tasks {
            tokio::spawn(task());
        }
        "hello"
    };
    Router::new().route("/", get(handler)).with_state(())
}

/// The layer stands around the router: see `overhead`.
fn ours(tasks: usize) -> impl Client {
    let handler = async move |queue: BackgroundTasks| {
        for _ in 0..tasks {
            queue.add_task(task());
        }
        "hello"
    };
    Runner::new()
        .layer()
        .layer(Router::new().route("/", get(handler)).with_state(()))
}

/// What asks a service.
trait Client: Clone + Send + 'static {
    /// One request, until the body has ended.
    fn request(&mut self) -> impl Future<Output = ()> + Send;
}

impl<S, B> Client for S
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send,
{
    async fn request(&mut self) {
        let request = Request::get("/").body(Body::empty()).unwrap();
        // A router is always ready.
        let response = self.call(request).await.unwrap();
        let mut body = std::pin::pin!(response.into_body());
        while let Some(frame) = body.frame().await {
            black_box(frame.unwrap());
        }
    }
}

/// Nanoseconds of one of `count`.
fn nanos_each(count: usize, f: impl FnOnce()) -> f64 {
    time(f).as_secs_f64() * 1e9 / count as f64
}

fn tasks_per_request(runtime: &Runtime) {
    println!("tasks per request        ns per task   with tokio::spawn    ratio");
    for tasks in [1, 10, 100, 1_000, 10_000] {
        let requests = (if is_smoke() { 1_000 } else { 50_000 } / tasks).max(1);
        let (mut ours, mut spawned) = (ours(tasks), spawned(tasks));
        let (ours, spawned, ratio) = pair(
            || nanos_of_tasks(runtime, &mut ours, tasks, requests),
            || nanos_of_tasks(runtime, &mut spawned, tasks, requests),
        );
        println!("{tasks:<20} {ours:>15.1} {spawned:>19.1} {ratio:>8.2}");
    }
}

/// Nanoseconds a task, its share of the request included.
///
/// Each request's tasks have ended before the next begins.
fn nanos_of_tasks(
    runtime: &Runtime,
    client: &mut impl Client,
    tasks: usize,
    requests: usize,
) -> f64 {
    nanos_each(tasks * requests, || {
        runtime.block_on(async {
            for _ in 0..requests {
                let before = RAN.load(Ordering::Relaxed);
                client.request().await;
                until_ran(before, tasks).await;
            }
        });
    })
}

/// The medians of two sides that take turns, and of their ratios within a round.
fn pair(mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> (f64, f64, f64) {
    one(); // warm up
    other();
    let pairs: Vec<(f64, f64)> = (0..rounds(31))
        .map(|round| {
            if round % 2 == 0 {
                (one(), other())
            } else {
                let other = other();
                (one(), other)
            }
        })
        .collect();
    let ratios = pairs.iter().map(|(one, other)| one / other).collect();
    let (ones, others) = pairs.into_iter().unzip();
    (median(ones), median(others), median(ratios))
}

fn worker_threads() {
    println!("worker threads        requests/s   with tokio::spawn    ratio");
    for workers in [1, 2, 4, 8] {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .unwrap();
        let requests = if is_smoke() { 1_000 } else { 40_000 } / workers;
        let (ours, spawned) = (ours(1), spawned(1));
        let (ours, spawned, ratio) = pair(
            || requests_per_second(&runtime, &ours, workers, requests),
            || requests_per_second(&runtime, &spawned, workers, requests),
        );
        println!("{workers:<15} {ours:>16.0} {spawned:>19.0} {ratio:>8.2}");
    }
}

/// As many clients as workers, each with `requests` of one task.
fn requests_per_second(
    runtime: &Runtime,
    client: &impl Client,
    workers: usize,
    requests: usize,
) -> f64 {
    let spent = time(|| {
        runtime.block_on(async {
            let before = RAN.load(Ordering::Relaxed);
            let clients = (0..workers).map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move {
                    for _ in 0..requests {
                        client.request().await;
                        yield_now().await; // to the task
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await.unwrap();
            }
            until_ran(before, workers * requests).await;
        });
    });
    (workers * requests) as f64 / spent.as_secs_f64()
}

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    tasks_per_request(&runtime);
    println!();
    worker_threads();
}
