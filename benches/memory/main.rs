//! What does it cost me in memory? What the layer and its tasks allocate, and what a waiting task
//! and an open response hold.
//!
//!     cargo bench --bench memory

#[expect(dead_code, reason = "each bench uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod counting;

use std::{
    convert::Infallible,
    future::ready,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll},
};

use common::{
    Budget,
    sides::{BoxSide, bare, idle_layer, ours, runtime, spawned},
};
use counting::allocations;
use http::{Request, Response};
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn};
use tower_background_tasks::{BackgroundTasks, ResponseBody, Runner};

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

/// Bytes that a response without tasks holds while it is open, beside the response itself.
fn bytes_of_an_open_response(runtime: &Runtime) -> f64 {
    const RESPONSES: usize = 10_000;
    let respond = async |_| Ok::<_, Infallible>(Response::new(String::new()));
    let mut service = Runner::new().layer().layer(service_fn(respond));
    let mut open = Vec::with_capacity(RESPONSES);
    let (_, held) = allocations(|| {
        runtime.block_on(async {
            for _ in 0..RESPONSES {
                let Ok(response) = service.call(Request::new(())).await;
                open.push(response);
            }
        });
    });
    let of_body = size_of::<ResponseBody<String>>() - size_of::<String>();
    held as f64 / RESPONSES as f64 + of_body as f64
}

/// How tasks come to wait.
#[derive(Clone, Copy)]
enum Wait {
    /// For one response.
    OneResponse,
    /// For a response each.
    ResponseEach,
    /// For a place on the runner.
    Place,
}

/// Bytes each of many waiting tasks holds, with all that it waits in.
fn bytes_of_waiting(runtime: &Runtime, wait: Wait) -> f64 {
    const TASKS: usize = 100_000;
    let runner = Runner::builder().max_running(64).build();
    let respond = |queue| runner.attach(Response::new(String::new()), queue);
    let (mut responses, one) = (Vec::with_capacity(TASKS), BackgroundTasks::new());
    let _inside = runtime.enter();
    let (_, held) = allocations(|| match wait {
        Wait::OneResponse => {
            (0..TASKS).for_each(|_| one.add_task(ready(())));
            responses.push(respond(one));
        }
        Wait::ResponseEach => {
            for _ in 0..TASKS {
                let queue = BackgroundTasks::new();
                queue.add_task(ready(()));
                responses.push(respond(queue));
            }
        }
        Wait::Place => (0..TASKS).for_each(|_| runner.add_task(ready(()))),
    });
    responses.clear();
    runtime.block_on(runner.idle());
    held as f64 / TASKS as f64
}

fn main() {
    let runtime = runtime();
    let mut budget = Budget::default();
    let [none, idle] = [bare(), idle_layer()].map(|side| allocations_of(&runtime, side));
    budget.at_most(
        "allocations the idle layer adds to a request",
        idle - none,
        2.0,
    );
    // The handlers of these hold a number, for which axum allocates: so does that of no task.
    let sides = [spawned(0), ours(1), ours(11)];
    let [none, one, eleven] = sides.map(|side| allocations_of(&runtime, side));
    budget.at_most("allocations of one task with its layer", one - none, 4.0);
    budget.at_most(
        "allocations of each further task",
        (eleven - one) / 10.0,
        1.0,
    );
    budget.at_most(
        "bytes a waiting task holds, future included",
        bytes_of_a_waiting_task(),
        72.0,
    );
    budget.at_most(
        "bytes an open response without tasks holds",
        bytes_of_an_open_response(&runtime),
        300.0,
    );
    budget.verdict();
    for (wait, name) in [
        (Wait::OneResponse, "for one response"),
        (Wait::ResponseEach, "for a response each"),
        (Wait::Place, "for one of 64 places"),
    ] {
        let bytes = bytes_of_waiting(&runtime, wait);
        println!("bytes of a task, with its queue, that waits {name:<28} {bytes:>8.1}");
    }
}
