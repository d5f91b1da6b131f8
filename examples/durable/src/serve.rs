//! The server: accepts orders.

use axum::{Router, routing::post};
use tokio::net::TcpListener;
use tower_background_tasks::{BoxError, Runner, ShutdownSignal};

use crate::{Settings, handler::order, progress};

/// Accepts orders until `shutdown`.
pub(crate) async fn serve(
    settings: &Settings,
    runner: &Runner,
    shutdown: ShutdownSignal,
) -> Result<(), BoxError> {
    let app = Router::new()
        .route("/orders", post(order))
        .layer(runner.layer());
    let listener = listen(&settings.address).await?;
    tokio::select! {
        served = axum::serve(listener, app).with_graceful_shutdown(shutdown) => Ok(served?),
        () = progress::of_runner(runner), if settings.in_process => Ok(()),
    }
}

async fn listen(address: &str) -> Result<TcpListener, BoxError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C or SIGTERM stops it. Try:");
    println!(
        "  curl -H 'content-type: application/json' -d '{{\"number\":1,\"failures\":2}}' http://{address}/orders"
    );
    Ok(listener)
}
