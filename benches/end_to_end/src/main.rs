//! One server in one of several ways to do a small task after the answer: `end_to_end_server MODE`.
//!
//! It serves on `ADDR` with `WORKERS` worker threads (2 by default) until it is killed. `GET /` is
//! what is measured; `GET /ran` says how many tasks have run.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{Router, body::Body, http::Response, routing::get, serve::ListenerExt};
use tokio::{net::TcpListener, runtime::Builder};
use tower::{Layer, layer::util::Identity, make::Shared, util::MapResponse};
use tower_background_tasks::{BackgroundTasks, BoxError, ResponseBody, Runner};

static RAN: AtomicU64 = AtomicU64::new(0);

/// The task, the same in every mode.
fn count() {
    RAN.fetch_add(1, Ordering::Relaxed);
}

/// The router. For each layer that `Router::layer` puts on, axum makes three or four boxes.
fn app(mode: &str) -> Result<Router, BoxError> {
    let bare = Router::new().route("/", get(async || "hello"));
    let spawning = Router::new().route(
        "/",
        get(async || {
            tokio::spawn(async { count() });
            "hello"
        }),
    );
    let adding = Router::new().route(
        "/",
        get(async |tasks: BackgroundTasks| {
            tasks.add_task(async { count() });
            "hello"
        }),
    );
    let layer = Runner::new().layer();
    let app = match mode {
        "bare" => bare,
        "idle" => bare.layer(layer),
        "spawn" => spawning,
        "spawn_layered" => spawning.layer(Identity::new()),
        "async" => adding.layer(layer),
        "async_around" => adding,
        "spawn_blocking" => Router::new().route(
            "/",
            get(async || {
                tokio::task::spawn_blocking(count);
                "hello"
            }),
        ),
        "blocking" => {
            let handler = async |tasks: BackgroundTasks| {
                tasks.add_blocking_task(count);
                "hello"
            };
            Router::new().route("/", get(handler)).layer(layer)
        }
        other => return Err(format!("no mode {other:?}").into()),
    };
    let ran = async || RAN.load(Ordering::Relaxed).to_string();
    Ok(app.route("/ran", get(ran)))
}

fn main() -> Result<(), BoxError> {
    let mode = env::args().nth(1).ok_or("which mode?")?;
    let app = app(&mode)?;
    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let workers = env::var("WORKERS").unwrap_or_else(|_| "2".into()).parse()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        if mode == "async_around" {
            let around = Runner::new().layer().layer(app);
            let around = MapResponse::new(around, |response: Response<ResponseBody<Body>>| {
                response.map(Body::new) // what `axum::serve` takes
            });
            axum::serve(listener, Shared::new(around)).await?;
        } else {
            axum::serve(listener, app).await?;
        }
        Ok(())
    })
}
