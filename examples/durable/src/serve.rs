//! The server: accepts orders.

use axum::{Router, routing::post};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tower_background_tasks::{BoxError, Runner};

use crate::{Engine, Settings, handler::order, progress, runner, warehouse::Warehouse};

/// Accepts orders until `stop`.
///
/// # Errors
///
/// This returns an error when it cannot listen.
pub async fn serve(
    settings: &Settings,
    engine: &Engine,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let jobs = runner::jobs(Warehouse::open(&settings.shipped)?);
    let runner = match settings.in_process {
        true => runner::in_process(settings, jobs, engine),
        false => runner::stored(settings, jobs, engine),
    };
    let app = Router::new()
        .route("/orders", post(order))
        .layer(runner.layer());

    let listener = listen(&settings.address).await?;
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        sleep(settings.grace).await;
    };
    tokio::select! {
        served = serving => served?,
        () = overdue => println!("Some requests did not end in {:?}", settings.grace),
        () = progress::of_runner(&runner), if settings.in_process => {}
    }
    shut_down(&runner, settings).await;
    Ok(())
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

async fn shut_down(runner: &Runner, settings: &Settings) {
    let report = runner.shutdown(settings.grace).await;
    let stats = runner.stats();
    if settings.in_process {
        println!(
            "Shipped {} here, handed {} to the store, left {}",
            stats.completed,
            report.spilled().len(),
            report.unfinished().len()
        );
    }
    if !report.is_clean() {
        println!("{report}");
    }
}
