//! The HTTP handler: the same whether the job runs in this process, or on a hundred machines.

use axum::{Json, http::StatusCode};
use tower_background_tasks::{AddJobError, BackgroundTasks};

use crate::ShipOrder;

/// The 202 is a promise: the order is shipped. Where it cannot be given, the client is told to come back (503).
pub(crate) async fn order(
    tasks: BackgroundTasks,
    Json(order): Json<ShipOrder>,
) -> Result<StatusCode, AddJobError> {
    tasks.add_job(order).await?;
    Ok(StatusCode::ACCEPTED)
}
