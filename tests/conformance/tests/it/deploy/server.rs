//! The process: a server of one kind, which says what it has begun, and how all of it ended.

use std::{
    convert::Infallible,
    env,
    future::{IntoFuture, pending},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State, ws::WebSocketUpgrade},
    response::Response,
    routing::{get, post},
};
use futures_util::{Stream, StreamExt, stream};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, time::sleep};
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_server::{Health, HealthServer},
};
use tower::ServiceExt;
use tower_background_tasks::{
    BackgroundTasks, Order, Runner, Serve, ShutdownSignal, Task, TaskEnd, TaskInfo,
};

/// That of the short plan.
pub(super) const DEADLINE: Duration = Duration::from_millis(1_100);
pub(super) const TASKS_OF_ALL_KINDS: u64 = 1_000;
/// How many of them one request adds.
pub(super) const TASKS_OF_A_REQUEST: u64 = 20;
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

#[derive(Clone, Default)]
struct Books(Arc<Mutex<[Vec<u64>; 2]>>);

impl Books {
    fn begun(&self, number: u64) {
        self.0.lock().unwrap()[0].push(number);
    }

    fn done(&self, name: &str) {
        if let Ok(number) = name.parse() {
            self.0.lock().unwrap()[1].push(number);
        }
    }
}

pub(super) fn run() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(serve());
}

async fn serve() {
    let listener = TcpListener::bind(format!("127.0.0.1:{}", setting("PORT")));
    let listener = listener.await.unwrap();
    println!("\nlistening {}", listener.local_addr().unwrap());

    let books = Books::default();
    let runner = runner(&books);
    let app = app(&books).layer(runner.layer());
    let report = match setting("SERVER").as_str() {
        "Axum" => {
            let server = |shutdown| {
                axum::serve(listener, app)
                    .with_graceful_shutdown(shutdown)
                    .into_future()
            };
            by_plan(runner.serve(server)).await.unwrap()
        }
        "AxumServer" => {
            let server = |shutdown| axum_server(listener, app, shutdown);
            by_plan(runner.serve(server)).await.unwrap()
        }
        "Hyper" => {
            let server = |shutdown| hyper(listener, app, shutdown);
            by_plan(runner.serve(server)).await.unwrap()
        }
        "Tonic" => {
            let server = tonic::transport::Server::builder()
                .layer(runner.layer())
                .add_service(HealthServer::new(books.clone()));
            let incoming = TcpIncoming::from(listener);
            let server = |shutdown| server.serve_with_incoming_shutdown(incoming, shutdown);
            by_plan(runner.serve(server)).await.unwrap()
        }
        other => panic!("no server {other}"),
    };
    println!("{report}");
    let [begun, done] = &*books.0.lock().unwrap();
    let named: Vec<_> = report
        .unfinished()
        .iter()
        .chain(report.rejected())
        .collect();
    let named = named.into_iter().map(TaskInfo::name);
    println!("begun {}", line(begun.iter()));
    println!("done {}", line(done.iter()));
    println!("named {}", line(named));
    report.exit();
}

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} says what to do"))
}

fn line(words: impl Iterator<Item = impl ToString>) -> String {
    let words: Vec<_> = words.map(|word| word.to_string()).collect();
    words.join(" ")
}

fn runner(books: &Books) -> Runner {
    let books = books.clone();
    Runner::builder()
        .order(Order::Concurrent)
        .on_task_end(move |report| match report.end() {
            TaskEnd::Aborted | TaskEnd::Rejected => {}
            _ => books.done(report.name()),
        })
        .build()
}

fn by_plan<S>(server: Serve<S>) -> Serve<S> {
    match setting("PLAN").as_str() {
        "short" => {
            let (requests, tasks) = (5 * SHORT, 5 * SHORT);
            server.unready_for(SHORT).requests(requests).tasks(tasks)
        }
        _ => server,
    }
}

async fn axum_server(
    listener: TcpListener,
    app: Router,
    shutdown: ShutdownSignal,
) -> io::Result<()> {
    let handle = axum_server::Handle::new();
    let server = axum_server::from_tcp(listener.into_std()?)?.handle(handle.clone());
    let stopping = async {
        shutdown.await;
        handle.graceful_shutdown(None);
        pending::<()>().await;
    };
    tokio::select! {
        served = server.serve(app.into_make_service()) => served,
        () = stopping => Ok(()),
    }
}

async fn hyper(
    listener: TcpListener,
    app: Router,
    mut shutdown: ShutdownSignal,
) -> Result<(), Infallible> {
    let http = auto::Builder::new(TokioExecutor::new());
    let connections = GracefulShutdown::new();
    let service = app.map_request(|request: Request<Incoming>| request.map(Body::new));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let service = TowerToHyperService::new(service.clone());
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::spawn(connections.watch(connection.into_owned()));
    }
    drop(listener);
    connections.shutdown().await;
    Ok(())
}

fn app(books: &Books) -> Router {
    Router::new()
        .route("/do/{what}", get(act))
        .route("/events", get(events))
        .route("/download", get(download))
        .route("/upload", post(upload))
        .route("/socket", get(socket))
        .with_state(books.clone())
}

async fn act(
    State(books): State<Books>,
    tasks: BackgroundTasks,
    Path(what): Path<String>,
) -> StatusCode {
    books.act(&tasks, &what).await;
    StatusCode::OK
}

impl Books {
    /// Does what a request says: `work-7`, `tasks-20`, `hang`.
    async fn act(&self, tasks: &BackgroundTasks, what: &str) {
        let (what, number) = what.split_once('-').unwrap_or((what, "0"));
        let number = number.parse().unwrap();
        match what {
            "work" => {
                self.begun(number);
                tasks.add_task(some_work(number).named(number.to_string()));
                sleep(Duration::from_millis(number % 10)).await;
            }
            "tasks" => (number..number + TASKS_OF_A_REQUEST).for_each(|number| add(tasks, number)),
            _ => {
                println!("hanging ");
                pending().await
            }
        }
    }
}

fn some_work(number: u64) -> Task {
    let time = Duration::from_millis(number % 20);
    match number % 7 {
        0 => Task::blocking(move || thread::sleep(time)),
        _ => Task::new(sleep(time)),
    }
}

/// Adds a task of one of all kinds. Most do not end.
fn add(tasks: &BackgroundTasks, number: u64) {
    let task = match number % 10 {
        0 => Task::new(async {}),
        1 => Task::blocking(|| ()),
        2 => Task::new(async { Err::<(), _>("on purpose") }),
        3 => Task::new(async {}).run_if(|_| false),
        4 => Task::blocking(|| thread::sleep(LONG)),
        5 => Task::blocking(|| thread::sleep(LONG)).timeout(LONG),
        6 => Task::new(sleep(LONG)).timeout(LONG),
        7 => Task::with_context(|cx| async move {
            cx.shutting_down().await; // it is told, and does not care
            pending::<()>().await;
        }),
        8 => Task::new(sleep(LONG)),
        _ => Task::new(pending::<()>()),
    };
    tasks.add_task(task.named(number.to_string()));
}

/// Tells how the response ended.
fn told(tasks: &BackgroundTasks, name: &'static str) {
    let tell = Task::with_context(move |cx| async move {
        println!("{name} ended {:?}", cx.response().unwrap().end);
    });
    tasks.add_task(tell.run_if(|_| true)); // also if there was no response
}

async fn events(tasks: BackgroundTasks) -> Body {
    told(&tasks, "events");
    Body::from_stream(stream::repeat("data: event\n\n").then(async |event| {
        sleep(Duration::from_millis(20)).await;
        Ok::<_, Infallible>(event)
    }))
}

async fn download(tasks: BackgroundTasks) -> Body {
    told(&tasks, "download");
    const CHUNK: Bytes = Bytes::from_static(&[b'.'; 1 << 16]);
    Body::from_stream(stream::repeat(CHUNK).map(Ok::<_, Infallible>))
}

async fn upload(tasks: BackgroundTasks, body: Body) -> StatusCode {
    told(&tasks, "upload");
    let _ = axum::body::to_bytes(body, 1 << 20).await;
    StatusCode::OK
}

async fn socket(tasks: BackgroundTasks, upgrade: WebSocketUpgrade) -> Response {
    let open = tasks.keep_open();
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(_)) = socket.recv().await {}
        drop(open);
    })
}

#[tonic::async_trait]
impl Health for Books {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        self.act(&tasks, &request.get_ref().service).await;
        Ok(tonic::Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, tonic::Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        told(
            &BackgroundTasks::from_extensions(request.extensions()).unwrap(),
            "events",
        );
        let answers = stream::repeat(HealthCheckResponse { status: 1 }).then(async |answer| {
            sleep(Duration::from_millis(20)).await;
            Ok(answer)
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}
