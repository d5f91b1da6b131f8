//! Without axum: a plain hyper service finds the request's queue in its extensions.
//!
//! ```text
//! cargo run --example hyper_service
//! curl http://127.0.0.1:3000/
//! ```

use std::{convert::Infallible, env};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{Layer, service_fn};
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, ShutdownSignal, Task};

async fn handle(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    match BackgroundTasks::from_extensions(request.extensions()) {
        Ok(tasks) => tasks.add_task(Task::with_context(|cx| async move {
            println!("{path}: {:?}", cx.response());
        })),
        // Only where the layer below is missing; the text tells the operator what to do.
        Err(missing) => {
            tracing::error!("{missing}");
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(response);
        }
    }
    Ok(Response::new(Full::from("hello\n")))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let runner = Runner::new();
    let service = TowerToHyperService::new(runner.layer().layer(service_fn(handle)));

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  curl http://{address}/");

    let server = async move |mut shutdown: ShutdownSignal| {
        let http = auto::Builder::new(TokioExecutor::new());
        let connections = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut shutdown => break,
            };
            // A connection that could not be accepted is no reason to stop.
            let Ok((stream, _)) = accepted else { continue };
            let connection = http.serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(connections.watch(connection.into_owned()));
        }
        drop(listener);
        connections.shutdown().await;
        Ok::<_, Infallible>(())
    };
    let report = runner.serve(server).await?;
    println!("{report}");
    report.exit()
}
