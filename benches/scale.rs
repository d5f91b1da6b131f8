//! How the cost of a task grows with how many there are: in one request, waiting, and over how many worker threads.
//!
//! `tokio::spawn` takes its turns in the same rounds where it can do the same; each ratio is ours over its. Each figure is the
//! median over the rounds.

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
    sync::oneshot,
    task::yield_now,
};
use tower::{Layer, Service};
use tower_background_tasks::{BackgroundTasks, ResponseBody, Runner};

/// Tasks that have run.
static RAN: AtomicUsize = AtomicUsize::new(0);

/// The task of all measurements: next to nothing, so that what is measured is what is around it.
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
    Router::new().route("/", get(handler))
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
        .layer(Router::new().route("/", get(handler)))
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

/// Nanoseconds a task, its share of the request included; each request's tasks have ended before the next.
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

/// How tasks come to wait.
#[derive(Clone, Copy)]
enum Wait {
    /// For one response.
    OneResponse,
    /// For a response each.
    ResponseEach,
    /// For a place on the runner, of a response each that has ended.
    Place,
    /// Under `tokio::spawn`, for a message each: what so many things that wait cost where nothing is ours.
    Spawned,
}

impl Wait {
    fn name(self) -> &'static str {
        match self {
            Self::OneResponse => "for one response",
            Self::ResponseEach => "for a response each",
            Self::Place => "for one of 64 places",
            Self::Spawned => "spawned, for a oneshot each",
        }
    }

    fn runner(self) -> Runner {
        match self {
            Self::Place => Runner::builder().max_running(64).build(),
            _ => Runner::new(),
        }
    }

    /// Adds `tasks` tasks, and keeps in `responses` what they wait for.
    fn add(
        self,
        runner: &Runner,
        tasks: usize,
        responses: &mut Vec<Response<ResponseBody<String>>>,
    ) {
        let respond = |queue| runner.attach(Response::new(String::new()), queue);
        match self {
            Self::OneResponse => {
                let queue = BackgroundTasks::new();
                responses.push(respond(queue.clone()));
                for _ in 0..tasks {
                    queue.add_task(task());
                }
            }
            Self::ResponseEach => {
                for _ in 0..tasks {
                    let queue = BackgroundTasks::new();
                    queue.add_task(task());
                    responses.push(respond(queue));
                }
            }
            Self::Place => {
                for _ in 0..tasks {
                    runner.add_task(task());
                }
            }
            Self::Spawned => unreachable!("it has no runner"),
        }
    }
}

fn waiting(runtime: &Runtime) {
    println!("waiting tasks                                ns per task   over 1,000");
    for wait in [
        Wait::OneResponse,
        Wait::ResponseEach,
        Wait::Place,
        Wait::Spawned,
    ] {
        let largest: usize = if is_smoke() { 10_000 } else { 1_000_000 };
        let sizes = [1_000, 10_000, 100_000, 1_000_000];
        let sizes = sizes.into_iter().filter(|size| *size <= largest);
        let mut samples: Vec<(usize, Vec<f64>)> = sizes.map(|size| (size, Vec::new())).collect();
        let runner = wait.runner();
        for round in 0..=rounds(5) {
            for (size, nanos) in &mut samples {
                let times = largest / *size / 10;
                let figure = wait_and_run(runtime, &runner, wait, *size, times.max(1));
                // The first round warms up.
                nanos.extend((round > 0).then_some(figure));
            }
        }
        let few = samples[0].1.clone();
        for (size, nanos) in samples {
            let ratios = nanos.iter().zip(&few).map(|(many, few)| many / few);
            let (ratio, nanos) = (median(ratios.collect()), median(nanos));
            let name = wait.name();
            println!("{size:<9} {name:<28} {nanos:>17.1} {ratio:>12.2}");
        }
    }
}

/// Nanoseconds a task for adding and running it.
fn wait_and_run(runtime: &Runtime, runner: &Runner, wait: Wait, tasks: usize, times: usize) -> f64 {
    if let Wait::Spawned = wait {
        return spawn_and_run(runtime, tasks, times);
    }
    let mut responses = Vec::with_capacity(tasks);
    nanos_each(tasks * times, || {
        runtime.block_on(async {
            for _ in 0..times {
                wait.add(runner, tasks, &mut responses);
                responses.clear();
                runner.idle().await;
            }
        });
    })
}

fn spawn_and_run(runtime: &Runtime, tasks: usize, times: usize) -> f64 {
    let mut messages = Vec::with_capacity(tasks);
    nanos_each(tasks * times, || {
        runtime.block_on(async {
            for _ in 0..times {
                let before = RAN.load(Ordering::Relaxed);
                for _ in 0..tasks {
                    let (message, told) = oneshot::channel::<()>();
                    messages.push(message);
                    tokio::spawn(async {
                        let _ = told.await;
                        task().await;
                    });
                }
                yield_now().await; // they begin to wait
                messages.clear();
                until_ran(before, tasks).await;
            }
        });
    })
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
    waiting(&runtime);
    println!();
    worker_threads();
}
