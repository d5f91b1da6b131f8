//! Finding the request's queue without passing it on.

use axum::{Router, body::Body, routing::get};
use http::Request;
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};
use tower_background_tasks::{BackgroundTasks, Runner};

use crate::support::{Log, full, read_all, soon};

async fn ten_functions_deep(log: &Log, line: &str) -> bool {
    yield_now().await;
    let Some(tasks) = BackgroundTasks::current() else {
        return false;
    };
    tasks.add_task(log.task(line));
    true
}

#[tokio::test]
async fn current_queue_is_the_requests_own_and_none_elsewhere() {
    let (runner, log) = (Runner::new(), Log::default());
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/",
            get(async move |own: BackgroundTasks| {
                assert!(ten_functions_deep(&handler_log, "deep").await);
                let spawned = tokio::spawn(async { BackgroundTasks::current().is_some() });
                assert!(!spawned.await.unwrap());
                own.add_task(async { assert!(BackgroundTasks::current().is_none()) });
                own.add_blocking_task(|| assert!(BackgroundTasks::current().is_none()));
                "hello"
            }),
        )
        .layer(runner.layer());
    assert!(BackgroundTasks::current().is_none());
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert!(BackgroundTasks::current().is_none());
    read_all(response).await;
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["deep"]);
    assert_eq!(runner.stats().completed, 3);
}

#[tokio::test]
async fn requests_on_one_thread_each_find_their_own_queue() {
    let (one, other, log) = (Runner::new(), Runner::new(), Log::default());
    let service = |runner: &Runner, line: &'static str| {
        let log = log.clone();
        runner.layer().layer(service_fn(move |_: Request<()>| {
            let log = log.clone();
            async move {
                for _ in 0..3 {
                    assert!(ten_functions_deep(&log, line).await);
                }
                Ok::<_, std::convert::Infallible>(full("hello"))
            }
        }))
    };
    let (a, b) = tokio::join!(
        service(&one, "one").oneshot(Request::new(())),
        service(&other, "other").oneshot(Request::new(())),
    );
    drop((a, b));
    soon(one.idle()).await;
    soon(other.idle()).await;
    assert_eq!((one.stats().completed, other.stats().completed), (3, 3));
}

#[test]
fn a_panic_in_a_handler_leaves_no_current_queue_behind() {
    let runner = Runner::new();
    let service = runner.layer().layer(service_fn(|_: Request<()>| async {
        assert!(BackgroundTasks::current().is_some());
        panic!("on purpose: a handler")
            as Result<http::Response<http_body_util::Empty<&[u8]>>, std::convert::Infallible>
    }));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        futures_util::FutureExt::now_or_never(service.oneshot(Request::new(())))
    }));
    assert!(panicked.is_err());
    assert!(BackgroundTasks::current().is_none());
}
