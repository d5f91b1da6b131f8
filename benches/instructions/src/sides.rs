//! The sides that no other bench has: requests that are logged.

use std::{
    any::type_name,
    future::{Ready, ready},
    io,
    panic::Location,
    time::Instant,
};

use axum::{Router, routing::get};
use http::{Method, Uri};
use tower::Layer;
use tower_background_tasks::{BackgroundTasks, Runner};
use tracing::{Instrument, Level, Span, debug, info_span, subscriber::set_global_default};

use crate::common::sides::{BoxSide, in_span, side};

/// Beside a task of ours at INFO: `tokio::spawn` in a span with as many fields as ours has, and an
/// event at the task's end.
fn spawning_in_span() -> Router {
    let handler = async |method: Method, uri: Uri| {
        let span = info_span!(
            parent: None,
            "background_task",
            task.id = 0,
            otel.name = type_name::<Ready<()>>(),
            otel.kind = "internal",
            task.kind = "async",
            code.file.path = Location::caller().file(),
            code.line.number = i64::from(Location::caller().line()),
            http.request.method = method.as_str(),
            url.path = uri.path(),
        );
        span.follows_from(Span::current());
        tokio::spawn(logged(ready(())).instrument(span));
        "hello"
    };
    Router::new().route("/", get(handler)).with_state(())
}

/// The task, and an event at its end.
async fn logged(task: impl Future<Output = ()>) {
    let begun = Instant::now();
    task.await;
    debug!(ran = ?begun.elapsed(), "background task completed");
}

pub(crate) fn spawned_in_span() -> BoxSide {
    side(spawning_in_span())
}

pub(crate) fn spawned_in_span_of_request() -> BoxSide {
    in_span(spawning_in_span())
}

pub(crate) fn ours_in_span_of_request() -> BoxSide {
    let handler = async |tasks: BackgroundTasks| {
        tasks.add_task(ready(()));
        "hello"
    };
    let router = Router::new().route("/", get(handler)).with_state(());
    in_span(Runner::new().layer().layer(router))
}

/// A side whose process logs at `level`, to a sink. Each side has a process of its own.
pub(crate) fn logging(level: Level, side: impl FnOnce() -> BoxSide) -> BoxSide {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(io::sink)
        .finish();
    set_global_default(subscriber).unwrap();
    side()
}
