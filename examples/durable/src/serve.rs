//! The server: accepts orders.

use axum::{Router, http::StatusCode, routing::post};
use tower_background_tasks::{BoxError, Runner, ShutdownSignal};
use tower_http::timeout::TimeoutLayer;

use crate::{Engine, Settings, handler::order};

/// Accepts orders until `shutdown`.
pub(crate) async fn serve(
    settings: &Settings,
    engine: &Engine,
    runner: &Runner,
    shutdown: ShutdownSignal,
) -> Result<(), BoxError> {
    let order = match settings.in_process {
        true => post(order),
        false => engine.order(),
    };
    let (busy, limit) = (StatusCode::SERVICE_UNAVAILABLE, settings.store_timeout);
    let app = Router::new()
        .route("/orders", order)
        .layer(TimeoutLayer::with_status_code(busy, limit))
        .layer(runner.layer());
    let listener = settings.listen().await?;
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown);
    Ok(server.await?)
}
