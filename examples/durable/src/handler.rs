//! The HTTP handler: with a job, and with a job in the order's own transaction.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use sqlx::{Database, Pool};
use tower_background_tasks::{AddJobError, BackgroundTasks, BoxError, Job};
use tracing::warn;

use crate::{ShipOrder, engine::Orders};

/// The 202 is a promise: the order is shipped, here after the response or by any worker, as
/// `runner.rs` says. Its body is the job's number, by which the board shows it.
pub(crate) async fn order(tasks: BackgroundTasks, Json(order): Json<ShipOrder>) -> Answer {
    let job = tasks.add_job(order).await?;
    Ok((StatusCode::ACCEPTED, job.to_string()))
}

/// The same where the order is a row, too: both are kept, or neither, and each order once.
pub(crate) async fn order_in_transaction<DB: Database<Connection: Orders>>(
    tasks: BackgroundTasks,
    State(pool): State<Pool<DB>>,
    Json(order): Json<ShipOrder>,
) -> Answer {
    let mut tx = pool.begin().await?;
    tx.insert_order(order.number).await?;
    let key = format!("order-{}", order.number);
    let job = tasks.add_job_in(&mut *tx, order.unique(key)).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, job.to_string()))
}

pub(crate) type Answer = Result<(StatusCode, String), NotAccepted>;

pub(crate) struct NotAccepted(BoxError);

impl<E: Into<BoxError>> From<E> for NotAccepted {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for NotAccepted {
    fn into_response(self) -> Response {
        match self.0.downcast::<AddJobError>() {
            Ok(error) => error.into_response(), // a 409 for an order that is there, or a 503
            Err(error) => {
                warn!("order not kept: {error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}
