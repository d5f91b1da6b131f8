//! The servers under test: the same service behind `axum::serve` and behind bare hyper.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, error_handling::HandleErrorLayer};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};

pub(crate) type Service = BoxCloneSyncService<Request<Body>, Response<Body>, io::Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    AxumServe,
    HyperAuto,
}

/// A server on a port of its own, until this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<watch::Sender<bool>>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(kind: ServerKind, service: Service) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = match kind {
            ServerKind::AxumServe => tokio::spawn(axum_serve(listener, service, stopped)),
            ServerKind::HyperAuto => tokio::spawn(hyper_auto(listener, service, stopped)),
        };
        Self {
            address,
            stop: Arc::new(stop),
            serving,
        }
    }

    /// Tells the server to take no more and to finish what it has: GOAWAY on HTTP/2.
    pub(crate) fn shut_down(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn is_true(mut value: watch::Receiver<bool>) {
    let _ = value.wait_for(|value| *value).await;
}

async fn axum_serve(listener: TcpListener, service: Service, stopped: watch::Receiver<bool>) {
    // axum's services cannot fail, so a user puts a handler for their errors around them.
    let on_error = HandleErrorLayer::new(async |_: io::Error| StatusCode::SERVICE_UNAVAILABLE);
    let app = Router::new().fallback_service(on_error.layer(service));
    axum::serve(listener, app)
        .with_graceful_shutdown(is_true(stopped))
        .await
        .unwrap();
}

async fn hyper_auto(listener: TcpListener, service: Service, stopped: watch::Receiver<bool>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(hyper_connection(stream, service.clone(), stopped.clone()));
    }
}

async fn hyper_connection(stream: TcpStream, service: Service, stopped: watch::Receiver<bool>) {
    let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = is_true(stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
