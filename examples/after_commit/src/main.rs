//! An order and its receipt: the mail is added within the transaction, and sent only if that commits.
//!
//! ```text
//! cargo run --package after_commit
//! curl -X POST http://127.0.0.1:3000/orders/lamp                               # is written, and its receipt is sent
//! curl -X POST http://127.0.0.1:3000/orders/moon                               # out of stock: rolled back, no receipt
//! curl --max-time 1 -X POST 'http://127.0.0.1:3000/orders/lamp?seconds=3'      # leaves before the commit: the same
//! curl http://127.0.0.1:3000/orders                                            # how many were written
//! ```
//!
//! A client that leaves during the COMMIT itself may leave an order without a receipt. `runner.layer().detached()` in place of
//! `runner.layer()` lets a handler end whoever leaves; then the order is written, and the receipt sent.

use std::{env, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use sqlx::{SqlitePool, sqlite::SqlitePoolOptions};
use tokio::{net::TcpListener, time::sleep};
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, Task};

#[cfg(test)]
mod tests;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Warehouse {
    /// How long it takes to answer.
    seconds: u64,
}

async fn order(
    tasks: BackgroundTasks,
    State(database): State<SqlitePool>,
    Path(item): Path<String>,
    Query(warehouse): Query<Warehouse>,
) -> Result<String, Refused> {
    let mut tx = database.begin().await?;
    let held = tasks.hold();
    let order = sqlx::query("INSERT INTO orders (item) VALUES (?)")
        .bind(&item)
        .execute(&mut *tx)
        .await?;
    let number = order.last_insert_rowid();
    held.add_task(Task::new(send_receipt(number)).named("receipt"));

    sleep(Duration::from_secs(warehouse.seconds)).await;
    // Fails where there is nothing left.
    sqlx::query("UPDATE stock SET pieces = pieces - 1 WHERE item = ?")
        .bind(&item)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    held.release();
    Ok(format!("order {number}: {item}\n"))
}

async fn send_receipt(number: i64) {
    println!("receipt of order {number} sent");
}

async fn count(State(database): State<SqlitePool>) -> Result<String, Refused> {
    let sql = "SELECT count(*) FROM orders";
    let count: i64 = sqlx::query_scalar(sql).fetch_one(&database).await?;
    Ok(format!("{count}\n"))
}

/// The transaction was rolled back, for this reason.
struct Refused(sqlx::Error);

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        println!("refused: {}", self.0);
        let error = self.0.as_database_error();
        let is_missing = error
            .is_some_and(|error| error.is_check_violation() || error.is_foreign_key_violation());
        match is_missing {
            true => (StatusCode::CONFLICT, "not in stock\n").into_response(),
            false => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

fn app(runner: &Runner, database: SqlitePool) -> Router {
    Router::new()
        .route("/orders/{item}", post(order))
        .route("/orders", get(count))
        .layer(runner.layer())
        .with_state(database)
}

/// A shop in memory, which is gone with its one connection.
async fn open() -> Result<SqlitePool, sqlx::Error> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect("sqlite::memory:")
        .await?;
    for sql in [
        "CREATE TABLE stock (item TEXT PRIMARY KEY, pieces INTEGER NOT NULL CHECK (pieces >= 0))",
        "CREATE TABLE orders (number INTEGER PRIMARY KEY, item TEXT NOT NULL REFERENCES stock)",
        "INSERT INTO stock VALUES ('lamp', 100), ('moon', 0)",
    ] {
        sqlx::query(sql).execute(&pool).await?;
    }
    Ok(pool)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let runner = Runner::builder()
        .on_task_end(|report| println!("{}: {}", report.name(), report.end()))
        .build();
    let app = app(&runner, open().await?);

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try:");
    println!("  curl -X POST http://{address}/orders/lamp");
    println!("  curl -X POST http://{address}/orders/moon");
    println!("  curl --max-time 1 -X POST 'http://{address}/orders/lamp?seconds=3'");
    println!("  curl http://{address}/orders");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .await?;
    println!("{report}");
    println!("{}", runner.stats());
    report.exit()
}
