//! The board of apalis: a page to look at queues, jobs and workers.

use apalis_board_api::{framework::ApiBuilder, ui::ServeUI};
use axum::Router;
use tower_background_tasks::{BoxError, Runner};

use crate::{Engine, Settings};

/// Serves the board until Ctrl-C or SIGTERM. It has no authentication: give it none but your own address.
///
/// # Errors
///
/// This returns an error when it cannot listen.
pub async fn board(settings: &Settings, engine: &Engine) -> Result<(), BoxError> {
    let api = engine.board(&settings.queue, ApiBuilder::new(Router::new()));
    let app = Router::new()
        .nest("/api/v1", api.build())
        .fallback_service(ServeUI::new());
    let listener = settings.listen().await?;
    let served =
        Runner::new().serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown));
    served.await?.exit()
}
