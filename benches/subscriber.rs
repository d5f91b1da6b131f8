//! What does it cost me with a subscriber? `tracing_subscriber::fmt` to a sink, at WARN and at INFO,
//! over the same requests without it.
//!
//!     cargo bench --bench subscriber
//!
//! Beside ours is what one would write without this crate: `tokio::spawn` in a span of the same
//! fields that follows from the request's, and an event at the task's end. Every request has a span.

#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::{
    any::type_name,
    future::{Ready, ready},
    io,
    panic::Location,
    sync::Mutex,
    time::Instant,
};

use axum::{Router, routing::get};
use common::{
    is_smoke, median, rounds,
    sides::{BoxSide, in_span, runtime},
    time,
};
use http::{Method, Uri};
use tokio::runtime::Runtime;
use tower::Layer as _;
use tower_background_tasks::{BackgroundTasks, Runner};
use tracing::{
    Instrument, Metadata, Span, Subscriber, callsite::rebuild_interest_cache, debug, info_span,
    level_filters::LevelFilter, subscriber::Interest, subscriber::set_global_default, warn,
};
use tracing_subscriber::{
    Layer, Registry,
    fmt::layer as fmt,
    layer::{Context, SubscriberExt},
};

/// What the subscriber lets through. Off is as if there were none.
static LEVEL: Mutex<LevelFilter> = Mutex::new(LevelFilter::OFF);

/// Filters by [`LEVEL`]. A callsite asks once, and again after `rebuild_interest_cache` alone.
struct Switch;

impl<S: Subscriber> Layer<S> for Switch {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match metadata.level() <= &*LEVEL.lock().unwrap() {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.level() <= &*LEVEL.lock().unwrap()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(*LEVEL.lock().unwrap())
    }
}

fn set_level(level: LevelFilter) {
    *LEVEL.lock().unwrap() = level;
    rebuild_interest_cache();
}

/// What becomes of a task.
type Output = Result<(), &'static str>;

fn ours(tasks: usize, output: Output) -> BoxSide {
    let handler = async move |queue: BackgroundTasks| {
        for _ in 0..tasks {
            queue.add_task(ready(output));
        }
        "hello"
    };
    let router = Router::new().route("/", get(handler)).with_state(());
    in_span(Runner::new().layer().layer(router))
}

fn spawned(tasks: usize, output: Output) -> BoxSide {
    let handler = async move |method: Method, uri: Uri| {
        for id in 0..tasks {
            let span = info_span!(
                parent: None,
                "background_task",
                task.id = id,
                otel.name = type_name::<Ready<Output>>(),
                otel.kind = "internal",
                task.kind = "async",
                code.file.path = Location::caller().file(),
                code.line.number = i64::from(Location::caller().line()),
                http.request.method = method.as_str(),
                url.path = uri.path(),
            );
            span.follows_from(Span::current());
            tokio::spawn(logged(ready(output)).instrument(span));
        }
        "hello"
    };
    in_span(Router::new().route("/", get(handler)).with_state(()))
}

/// The task, and an event at its end.
async fn logged(task: impl Future<Output = Output>) {
    let begun = Instant::now();
    match task.await {
        Ok(()) => debug!(ran = ?begun.elapsed(), "background task completed"),
        Err(error) => warn!(error, ran = ?begun.elapsed(), "background task failed"),
    }
}

const LEVELS: [LevelFilter; 3] = [LevelFilter::OFF, LevelFilter::WARN, LevelFilter::INFO];

/// The seconds that a request took in each of many short rounds: of each side, at each of [`LEVELS`].
///
/// Sides and levels take turns within a round.
fn measure(runtime: &Runtime, mut sides: [BoxSide; 2], requests: usize) -> Vec<[[f64; 3]; 2]> {
    let requests = if is_smoke() { 10 } else { requests };
    let mut turn = |turn: usize, times: &mut [[f64; 3]; 2]| {
        let (side, level) = (turn / 3 % 2, turn % 3);
        set_level(LEVELS[level]);
        let spent = time(|| runtime.block_on(sides[side].requests(requests)));
        times[side][level] = spent.as_secs_f64() / requests as f64;
    };
    let round = |round| {
        let mut times = Default::default();
        (round..round + 6).for_each(|number| turn(number, &mut times)); // each goes first in turn
        times
    };
    let warm_up = 1;
    (0..warm_up + rounds(1_001))
        .map(round)
        .skip(warm_up)
        .collect()
}

/// Prints three lines: ours, `tokio::spawn`, and ours over it.
fn compare(runtime: &Runtime, what: &str, sides: [BoxSide; 2], requests: usize) {
    let rounds = measure(runtime, sides, requests);
    let median = |f: &dyn Fn(&[[f64; 3]; 2]) -> f64| median(rounds.iter().map(f).collect());
    for (side, name) in [what, "  tokio::spawn in a span"].into_iter().enumerate() {
        let micros = median(&|times| times[side][0] * 1e6);
        let [warn, info] = [1, 2].map(|level| median(&|times| times[side][level] / times[side][0]));
        println!("{name:<30} {micros:>9.2} µs {warn:>12.2} {info:>12.2}");
    }
    let [off, warn, info] =
        [0, 1, 2].map(|level| median(&|[ours, spawned]| ours[level] / spawned[level]));
    let name = "  ours over it";
    println!("{name:<30} {off:>12.2} {warn:>12.2} {info:>12.2}");
}

fn main() {
    let subscriber = Registry::default()
        .with(Switch)
        .with(fmt().with_ansi(false).with_writer(io::sink));
    set_global_default(subscriber).unwrap();
    let runtime = runtime();
    println!("a request, whole                    without   WARN, over    INFO, over");
    for (what, tasks, output) in [
        ("one task", 1, Ok(())),
        ("one failing task", 1, Err("no mail server")),
        ("8 tasks", 8, Ok(())),
    ] {
        let sides = [ours(tasks, output), spawned(tasks, output)];
        compare(&runtime, what, sides, 80 / tasks);
    }
}
