//! gRPC with tonic: an interceptor adds an audit task to each call.
//!
//! ```text
//! cargo run --package grpc              # the server
//! cargo run --package grpc -- call      # a client, in a second terminal; ADDR says where
//! ```

use std::env;

use tokio::net::TcpListener;
use tonic::{
    Request, Status,
    service::InterceptorLayer,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_background_tasks::{BackgroundTasks, BoxError, Runner, Task};

/// A service finds the queue likewise: in `request.extensions()`.
fn audit(request: Request<()>) -> Result<Request<()>, Status> {
    let tasks = BackgroundTasks::from_extensions(request.extensions()).map_err(|missing| {
        tracing::error!("{missing}"); // for the operator: the client has no use for it
        Status::internal("the server is not set up")
    })?;
    tasks.add_task(Task::with_context(|cx| async move {
        println!("audit: {:?}", cx.response());
    }));
    Ok(request)
}

async fn serve(address: &str) -> Result<(), BoxError> {
    let runner = Runner::new();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Try, in a second terminal:");
    println!("  ADDR={address} cargo run --package grpc -- call");

    let server = Server::builder()
        .layer(runner.layer())
        .layer(InterceptorLayer::new(audit))
        .add_service(health);
    let incoming = TcpIncoming::from(listener);
    let report = runner
        .serve(|shutdown| server.serve_with_incoming_shutdown(incoming, shutdown))
        .await?;
    println!("{report}");
    report.exit()
}

async fn call(address: &str) -> Result<(), BoxError> {
    let channel = Channel::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel)
        .check(request)
        .await?
        .into_inner();
    println!("the server is {:?}", answer.status());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    match env::args().nth(1).as_deref() {
        None => serve(&address).await,
        Some("call") => call(&address).await,
        Some(other) => {
            Err(format!("unknown argument {other:?}: nothing serves, `call` calls").into())
        }
    }
}
