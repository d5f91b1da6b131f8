//! What the layer and its tasks cost, beside the ways they replace: the budget.
//!
//! The same axum route, called on a current-thread runtime; each request's tasks have ended before the next. Ours, its rivals and
//! the bare route take turns within each round. Layers stand around the router: inside of it, as `Router::layer` puts them, axum
//! adds four boxes of its own for any layer, which would make all layers look alike.

mod common;

use std::{
    convert::Infallible,
    future::ready,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use common::{Budget, allocations, is_smoke, median, rounds, time};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::yield_now,
};
use tower::{Layer, Service};
use tower_background_tasks::{BackgroundTasks, Runner};
use tower_http::trace::TraceLayer;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One way to serve a request, to be asked again and again.
trait Side {
    fn requests(&mut self, count: usize) -> Pin<Box<dyn Future<Output = ()> + '_>>;
}

struct App<S> {
    service: S,
    /// Told by each blocking task.
    done: UnboundedReceiver<()>,
    blocking_tasks: usize,
}

impl<S, B> Side for App<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    fn requests(&mut self, count: usize) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move {
            for _ in 0..count {
                self.request().await;
            }
        })
    }
}

impl<S, B> App<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    /// One request, until its tasks have ended.
    async fn request(&mut self) {
        let request = Request::get("/").body(Body::empty()).unwrap();
        // A router is always ready.
        let response = self.service.call(request).await.unwrap();
        let mut body = std::pin::pin!(response.into_body());
        while let Some(frame) = body.frame().await {
            black_box(frame.unwrap());
        }
        for _ in 0..self.blocking_tasks {
            self.done.recv().await.unwrap();
        }
        yield_now().await; // whatever was spawned gets its turns
    }
}

type BoxSide = Box<dyn Side>;

fn side<S, B>(blocking_tasks: usize, service: impl FnOnce(UnboundedSender<()>) -> S) -> BoxSide
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let (tell, done) = unbounded_channel();
    Box::new(App {
        service: service(tell),
        done,
        blocking_tasks,
    })
}

fn router() -> Router {
    Router::new().route("/", get(async || "hello"))
}

fn bare() -> BoxSide {
    side(0, |_| router())
}

fn traced() -> BoxSide {
    side(0, |_| TraceLayer::new_for_http().layer(router()))
}

fn idle_layer() -> BoxSide {
    side(0, |_| Runner::new().layer().layer(router()))
}

fn spawned(tasks: usize) -> BoxSide {
    let handler = async move || {
        for _ in 0..tasks {
            tokio::spawn(ready(()));
        }
        "hello"
    };
    side(0, |_| Router::new().route("/", get(handler)))
}

fn ours(tasks: usize) -> BoxSide {
    let handler = async move |queue: BackgroundTasks| {
        for _ in 0..tasks {
            queue.add_task(ready(()));
        }
        "hello"
    };
    side(0, |_| {
        Runner::new()
            .layer()
            .layer(Router::new().route("/", get(handler)))
    })
}

fn spawned_blocking(tasks: usize) -> BoxSide {
    side(tasks, |tell| {
        let handler = async move || {
            for _ in 0..tasks {
                let tell = tell.clone();
                tokio::task::spawn_blocking(move || tell.send(()));
            }
            "hello"
        };
        Router::new().route("/", get(handler))
    })
}

fn ours_blocking(tasks: usize) -> BoxSide {
    side(tasks, |tell| {
        let handler = async move |queue: BackgroundTasks| {
            for _ in 0..tasks {
                let tell = tell.clone();
                queue.add_blocking_task(move || tell.send(()));
            }
            "hello"
        };
        Runner::new()
            .layer()
            .layer(Router::new().route("/", get(handler)))
    })
}

/// The median over the rounds of what `ratio` makes of the sides' times in one round.
fn compare<const N: usize>(
    runtime: &Runtime,
    mut sides: [BoxSide; N],
    requests: usize,
    ratio: impl Fn([f64; N]) -> f64,
) -> f64 {
    let requests = if is_smoke() { 10 } else { requests };
    runtime.block_on(async {
        for side in &mut sides {
            side.requests(requests).await; // warm up
        }
    });
    let ratios = (0..rounds(101)).map(|round| {
        let mut times = [0.0; N];
        for turn in 0..N {
            let side = (turn + round) % N; // each goes first in turn
            let spent = time(|| runtime.block_on(sides[side].requests(requests)));
            times[side] = spent.as_secs_f64();
        }
        ratio(times)
    });
    median(ratios.collect())
}

/// Allocations of one request, in the steady state.
fn allocations_of(runtime: &Runtime, mut side: BoxSide) -> f64 {
    const REQUESTS: usize = 1_000;
    runtime.block_on(side.requests(REQUESTS));
    let (count, _) = allocations(|| runtime.block_on(side.requests(REQUESTS)));
    (count as f64 / REQUESTS as f64).round()
}

/// A small future.
struct TwoWords(usize, usize);

impl Future for TwoWords {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        black_box((self.0, self.1));
        Poll::Ready(())
    }
}

/// Bytes that a waiting task holds, its boxed future of two words included.
fn bytes_of_a_waiting_task() -> f64 {
    const TASKS: usize = 10_000;
    let queue = BackgroundTasks::new();
    let (_, held) = allocations(|| {
        for number in 0..TASKS {
            queue.add_task(TwoWords(number, TASKS));
        }
    });
    held as f64 / TASKS as f64
}

/// The cost of a task (adding it, and running it) among a million, over that among a thousand.
fn waiting(runtime: &Runtime) -> f64 {
    let many = if is_smoke() { 10_000 } else { 1_000_000 };
    let few = 1_000;
    let runner = Runner::new();
    let spend = |tasks: usize, times: usize| {
        let spent = time(|| {
            for _ in 0..times {
                runtime.block_on(async {
                    let queue = BackgroundTasks::new();
                    let response = runner.attach(Response::new(String::new()), queue.clone());
                    for _ in 0..tasks {
                        queue.add_task(ready(()));
                    }
                    drop(response);
                    runner.idle().await;
                });
            }
        });
        spent.as_secs_f64() / (tasks * times) as f64
    };
    spend(few, 100); // warm up
    median(
        (0..rounds(7))
            .map(|_| spend(many, 1) / spend(few, many / few))
            .collect(),
    )
}

fn main() {
    let runtime = runtime();
    let mut budget = Budget::default();
    let added = |[bare, one, other]: [f64; 3]| (one - bare) / (other - bare);

    budget.at_most(
        "idle layer over no layer, as a share of what TraceLayer adds",
        compare(&runtime, [bare(), idle_layer(), traced()], 2_000, added),
        0.4,
    );
    let none = allocations_of(&runtime, bare());
    let idle = allocations_of(&runtime, idle_layer());
    budget.at_most(
        "allocations the idle layer adds to a request",
        idle - none,
        3.0,
    );
    budget.at_most(
        "one task: what layer + task add, over what tokio::spawn adds",
        compare(&runtime, [bare(), ours(1), spawned(1)], 2_000, added),
        1.5,
    );
    for (tasks, limit) in [(8, 0.8), (64, 0.5)] {
        budget.at_most(
            &format!("{tasks} tasks, whole request, over {tasks} x tokio::spawn"),
            compare(
                &runtime,
                [ours(tasks), spawned(tasks)],
                4_000 / tasks,
                |[a, b]| a / b,
            ),
            limit,
        );
    }
    let one = allocations_of(&runtime, ours(1));
    let eleven = allocations_of(&runtime, ours(11));
    budget.at_most("allocations of one task with its layer", one - none, 5.0);
    budget.at_most(
        "allocations of each further task",
        (eleven - one) / 10.0,
        1.0,
    );
    for (tasks, limit) in [(1, 1.0), (8, 0.3)] {
        budget.at_most(
            &format!("{tasks} blocking, whole request, over {tasks} x spawn_blocking"),
            compare(
                &runtime,
                [ours_blocking(tasks), spawned_blocking(tasks)],
                400 / tasks,
                |[a, b]| a / b,
            ),
            limit,
        );
    }
    budget.at_most(
        "bytes a waiting task holds, future included",
        bytes_of_a_waiting_task(),
        72.0,
    );
    budget.at_most(
        "a task with a million waiting, over a thousand waiting",
        waiting(&runtime),
        1.5,
    );
    budget.verdict();
}
