//! Two steps that belong together, pay and book: both are done, though the client leaves during the first.
//!
//! ```text
//! cargo run --example shielded
//! curl --max-time 0.2 -X POST http://127.0.0.1:3000/orders/1       # the two steps are shielded
//! curl --max-time 0.2 -X POST http://127.0.0.1:3000/detached/2     # the handler as a whole
//! ```

use std::{env, time::Duration};

use axum::{Router, extract::Path, routing::post};
use tokio::{net::TcpListener, time::sleep};
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, ShieldAborted, Task};

const STEP: Duration = Duration::from_millis(500);

async fn pay_and_book(order: u32) {
    sleep(STEP).await;
    println!("order {order}: paid");
    sleep(STEP).await;
    println!("order {order}: booked");
}

async fn order(tasks: BackgroundTasks, Path(order): Path<u32>) -> Result<String, ShieldAborted> {
    let work = pay_and_book(order);
    tasks.shield_named("pay-and-book", work).await?;
    println!("order {order}: answered"); // not if the client has left: this is outside of the shield
    Ok(format!("order {order} is booked\n"))
}

/// Behind `detached()` it needs no shield. Its tasks run by its response, which nobody may be there to read.
async fn detached(tasks: BackgroundTasks, Path(order): Path<u32>) -> String {
    let mail = Task::with_context(move |cx| async move {
        if let Some(response) = cx.response() {
            let (status, end) = (response.status, response.end);
            println!("order {order}: mail sent; the response: {status:?}, {end:?}");
        }
    });
    tasks.add_task(mail.named("mail"));
    pay_and_book(order).await;
    format!("order {order} is booked\n")
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let runner = Runner::builder()
        .on_task_end(|report| println!("{}: {}", report.name(), report.end()))
        .build();
    let shielded = Router::new()
        .route("/orders/{order}", post(order))
        .layer(runner.layer());
    let app = Router::new()
        .route("/detached/{order}", post(detached))
        .layer(runner.layer().detached())
        .merge(shielded);

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try, and leave early:");
    println!("  curl --max-time 0.2 -X POST http://{address}/orders/1");
    println!("  curl --max-time 0.2 -X POST http://{address}/detached/2");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .await?;
    println!("{report}");
    report.exit()
}
