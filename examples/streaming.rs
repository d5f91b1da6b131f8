//! A large download and a feed of events, whose tasks tell how the response ended: leave one half-way and see.
//!
//! ```text
//! cargo run --example streaming
//! curl -o /dev/null http://127.0.0.1:3000/download      # 1 GiB; stop it half-way, or not
//! curl -N http://127.0.0.1:3000/events                  # stop it, or wait for the end
//! ```

use std::{convert::Infallible, env, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::header::CONTENT_LENGTH,
    response::{IntoResponse, Sse, sse::Event},
    routing::get,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{net::TcpListener, time::sleep};
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, Task};

const CHUNK: Bytes = Bytes::from_static(&[b'.'; 1 << 16]);
const CHUNKS: usize = 1 << 14;

async fn download(tasks: BackgroundTasks) -> impl IntoResponse {
    tasks.add_task(tells_how_it_ended("download"));
    let chunks = stream::repeat(CHUNK).take(CHUNKS).map(Ok::<_, Infallible>);
    let length = CHUNK.len() * CHUNKS;
    ([(CONTENT_LENGTH, length)], Body::from_stream(chunks))
}

async fn events(tasks: BackgroundTasks) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    tasks.add_task(tells_how_it_ended("events"));
    let events = stream::iter(1..=10).then(|number| async move {
        sleep(Duration::from_millis(500)).await;
        Ok(Event::default().data(format!("event {number}")))
    });
    // A feed that ends by itself at a shutdown need not be cut off at its end.
    Sse::new(events.take_until(async move { tasks.shutting_down().await }))
}

fn tells_how_it_ended(name: &'static str) -> Task {
    let task = Task::with_context(|cx| async move {
        if let Some(response) = cx.response() {
            println!(
                "{}: {:?} after {} bytes in {:?}",
                cx.name(),
                response.end,
                response.body_bytes,
                response.elapsed
            );
        }
    });
    task.named(name)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let runner = Runner::new();
    let app = Router::new()
        .route("/download", get(download))
        .route("/events", get(events))
        .layer(runner.layer());

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try, and stop one half-way:");
    println!("  curl -o /dev/null http://{address}/download");
    println!("  curl -N http://{address}/events");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .await?;
    println!("{report}");
    report.exit()
}
