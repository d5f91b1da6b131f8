//! The dashboard's answers, without its page: `conformance` opens that in a browser.

use std::{future::pending, thread, time::Duration};

use axum::{Router, body::Body, http::StatusCode};
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::oneshot;
use tower::{Service, ServiceExt};
use tower_background_tasks::{Dashboard, DashboardBody, Runner, Task};

use crate::support::{block_on, full, get, respond, until};

async fn call(dashboard: &Dashboard, request: Request<()>) -> Response<DashboardBody> {
    dashboard.clone().call(request).await.unwrap()
}

async fn ask(dashboard: &Dashboard, path: &str) -> Response<DashboardBody> {
    call(dashboard, get(path)).await
}

async fn text(response: Response<DashboardBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn snapshot(dashboard: &Dashboard) -> Value {
    let response = ask(dashboard, "/snapshot.json").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    serde_json::from_str(&text(response).await).unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::post(path).body(()).unwrap()
}

/// Returns the next event of a stream.
async fn event(body: &mut DashboardBody) -> Option<Value> {
    let frame = body.frame().await?.unwrap().into_data().unwrap();
    let text = String::from_utf8(frame.to_vec()).unwrap();
    let data = text.strip_prefix("data: ").unwrap();
    let data = data.strip_suffix("\n\n").unwrap();
    assert!(!data.contains('\n'));
    Some(serde_json::from_str(data).unwrap())
}

#[tokio::test]
async fn page_and_its_headers_are_the_same_under_any_path() {
    let dashboard = Runner::new().dashboard();
    for path in ["/", "/admin/tasks", "/admin/tasks/"] {
        let response = ask(&dashboard, path).await;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"));
        assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
        assert!(text(response).await.starts_with("<!doctype html>"));
    }
}

#[tokio::test]
async fn other_methods_are_refused() {
    let dashboard = Runner::new().dashboard().allow_cancel();
    let methods = [
        (Method::POST, "/", "GET, HEAD"),
        (Method::PUT, "/events", "GET, HEAD"),
        (Method::DELETE, "/snapshot.json", "GET, HEAD"),
        (Method::GET, "/cancel?id=1", "POST"),
    ];
    for (method, path, allowed) in methods {
        let mut request = get(path);
        *request.method_mut() = method;
        let response = call(&dashboard, request).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()["allow"], allowed);
    }
    let mut head = get("/events");
    *head.method_mut() = Method::HEAD;
    let response = call(&dashboard, head).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(response.body().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn snapshot_shows_what_runs_waits_ended_and_failed() {
    let runner = Runner::builder()
        .max_running(2)
        .route(|_| Some("/orders/{id}"))
        .build();
    let dashboard = runner.dashboard();
    let response = respond(&runner, get("/orders/7?secret=1"), |tasks| {
        tasks.add_task(Task::new(async {}).named("mail"));
        let failing = async { Err::<(), _>("no <b>card</b>") };
        tasks.add_task(Task::new(failing).named("charge"));
        full("hello")
    });
    drop(response.await);
    runner.idle().await;
    let _open = respond(&runner, get("/orders/8"), |tasks| {
        tasks.add_task(Task::new(async {}).named("waits"));
        full("hello")
    })
    .await;
    let export = Task::with_context(|cx| async move {
        for done in [f64::NAN, -1.0, 2.0, 0.4, f64::NAN] {
            cx.progress(done);
        }
        pending::<()>().await;
    });
    runner.add_task(export.named("export"));
    let has_begun = || runner.tasks().iter().any(|task| task.progress().is_some());
    until(has_begun).await;

    let shown = snapshot(&dashboard).await;
    assert_eq!(shown["state"], "ready");
    let totals = &shown["totals"];
    let of = |count: &str| totals[count].as_u64().unwrap();
    assert_eq!((of("added"), of("completed"), of("failed")), (4, 1, 1));
    assert_eq!((of("running"), of("awaiting_response")), (1, 1));
    assert_eq!(shown["limits"][0]["name"], "max_running");
    assert_eq!(shown["limits"][0]["used"], 1);
    assert_eq!(shown["tasks_total"], 2);
    let tasks = shown["tasks"].as_array().unwrap();
    let names: Vec<_> = tasks.iter().map(|task| &task["name"]).collect();
    assert_eq!(names, ["export", "waits"], "those that run come first");
    assert_eq!(
        (&tasks[0]["state"], &tasks[0]["progress"]),
        (&"running".into(), &0.4.into())
    );
    assert_eq!(tasks[1]["request"]["path"], "/orders/8");
    assert_eq!(tasks[1]["request"]["route"], "/orders/{id}");
    assert!(!shown.to_string().contains("secret"));
    let failure = &shown["failures"][0];
    assert_eq!(failure["error"], "no <b>card</b>");
    assert_eq!(
        (&failure["name"], &failure["end"]),
        (&"charge".into(), &"failed".into())
    );
    let groups = shown["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    let charge = groups
        .iter()
        .find(|group| group["name"] == "charge")
        .unwrap();
    assert_eq!(
        (&charge["ends"]["failed"], &charge["ends"]["completed"]),
        (&1.into(), &0.into())
    );
    assert_eq!(charge["ended"][59], 1);

    tokio::time::advance(Duration::from_secs(59)).await;
    let lately = |shown: &Value| shown["groups"][0]["ended"].as_array().unwrap()[0].clone();
    assert_eq!(lately(&snapshot(&dashboard).await), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let shown = snapshot(&dashboard).await;
    assert_eq!(lately(&shown), 0);
    assert_eq!(shown["groups"][0]["per_second"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_has_bounds() {
    let runner = Runner::new();
    let dashboard = runner.dashboard();
    for number in 0..300 {
        let path = format!("/{number}");
        let response = respond(&runner, get(&path), |tasks| {
            tasks.add_task(async move { Err::<(), _>("ä".repeat(5_000)) });
            full("hello")
        });
        drop(response.await);
        runner.add_task(Task::new(pending::<()>()).named(path));
    }
    until(|| runner.stats().failed == 300).await;
    let shown = snapshot(&dashboard).await;
    assert_eq!(shown["tasks"].as_array().unwrap().len(), 200);
    assert_eq!(shown["tasks_total"], 300);
    let failures = shown["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 100);
    assert_eq!(failures[0]["request"]["path"], "/299", "the newest first");
    assert_eq!(failures[0]["error"].as_str().unwrap().len(), 4_096);
}

#[tokio::test]
async fn a_flood_of_refusals_leaves_the_errors_of_tasks() {
    let runner = Runner::builder().max_pending(1).build();
    let dashboard = runner.dashboard();
    for _ in 0..10 {
        runner.add_task(async { Err::<(), _>("no card") });
        runner.idle().await;
    }
    let _open = respond(&runner, get("/"), |tasks| {
        tasks.add_task(async {});
        full("hello")
    });
    let (blocked, blocks) = oneshot::channel::<()>();
    runner.add_task(async { drop(blocks.await) });
    let refused = (0..1_000).filter(|_| runner.try_add_task(async {}).is_err());
    assert!(refused.count() > 900);
    for _ in 0..1_000 {
        runner.add_task(async {});
    }
    let shown = snapshot(&dashboard).await;
    let failures = shown["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 100);
    let ends = failures.iter().filter(|failure| failure["end"] == "failed");
    assert_eq!(ends.count(), 10);
    drop(blocked);
}

#[tokio::test(start_paused = true)]
async fn a_rate_counts_only_the_seconds_that_there_were() {
    let runner = Runner::new();
    let dashboard = runner.dashboard();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for _ in 0..20 {
        runner.add_task(Task::new(async {}).named("mail"));
    }
    runner.idle().await;
    let shown = snapshot(&dashboard).await;
    assert_eq!(shown["groups"][0]["per_second"], 2.0);
}

/// Each thread counts for itself, up to the bound.
#[test]
fn groups_of_many_threads_add_up() {
    let runner = Runner::builder()
        .route(|request| Some(request.uri.path()))
        .build();
    let dashboard = runner.dashboard();
    thread::scope(|scope| {
        for number in 0..8 {
            let runner = &runner;
            scope.spawn(move || {
                block_on(async {
                    for route in 0..40 {
                        let path = format!("/{number}/{route}");
                        let response = respond(runner, get(&path), |tasks| {
                            tasks.add_task(Task::new(async {}).named("mail"));
                            full("hello")
                        });
                        drop(response.await); // without a runtime, its task is aborted here
                    }
                });
            });
        }
    });
    let shown = block_on(snapshot(&dashboard));
    let groups = shown["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 101);
    assert_eq!(groups[100]["name"], "(others)");
    let ended: u64 = groups
        .iter()
        .map(|group| group["ends"]["aborted"].as_u64().unwrap())
        .sum();
    assert_eq!(ended, 320);
}

#[tokio::test]
async fn groups_beyond_the_bound_are_counted_together() {
    let numbers: Vec<_> = (0..300).map(|number| format!("/{number}")).collect();
    let runner = Runner::builder()
        .route(|request| Some(request.uri.path()))
        .build();
    let dashboard = runner.dashboard();
    for path in &numbers {
        let response = respond(&runner, get(path), |tasks| {
            tasks.add_task(Task::new(async {}).named("mail"));
            full("hello")
        });
        drop(response.await);
    }
    runner.idle().await;
    let shown = snapshot(&dashboard).await;
    let groups = shown["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 101);
    assert_eq!(groups[100]["name"], "(others)");
    assert_eq!(groups[100]["ends"]["completed"], 200);
}

#[tokio::test(start_paused = true)]
async fn events_come_once_a_second_and_end_with_the_shutdown() {
    let runner = Runner::new();
    let dashboard = runner.dashboard();
    let response = ask(&dashboard, "/events").await;
    assert_eq!(
        response.headers()["x-accel-buffering"],
        "no",
        "nginx passes events on"
    );
    let mut first = response.into_body();
    let begun = tokio::time::Instant::now();
    assert_eq!(event(&mut first).await.unwrap()["state"], "ready");
    assert_eq!(begun.elapsed(), Duration::ZERO, "the first comes at once");
    let mut second = ask(&dashboard, "/events").await.into_body();
    runner.add_task(pending::<()>());
    let both = (
        event(&mut first).await.unwrap(),
        event(&mut second).await.unwrap(),
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(both.0, both.1, "one snapshot for both");
    assert_eq!(both.0["totals"]["added"], 1);

    let shutdown = tokio::spawn({
        let runner = runner.clone();
        async move { runner.shutdown(Duration::from_secs(5)).await }
    });
    let last = event(&mut first).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "it does not wait");
    assert_eq!(last["state"], "shutting_down");
    assert_eq!(last["deadline_seconds"], 5.0);
    assert!(event(&mut first).await.is_none());
    event(&mut second).await.unwrap();
    assert!(event(&mut second).await.is_none());
    drop(shutdown.await.unwrap());
    let mut late = ask(&dashboard, "/events").await.into_body();
    assert_eq!(event(&mut late).await.unwrap()["state"], "shut_down");
    assert!(event(&mut late).await.is_none());
}

#[tokio::test]
async fn nobody_cancels_unless_that_is_allowed_nor_from_another_origin() {
    let runner = Runner::new();
    let id = runner.try_add_task(pending::<()>()).unwrap();
    let path = format!("/admin/cancel?id={id}");
    let refused = call(&runner.dashboard(), post(&path)).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let dashboard = runner.dashboard().allow_cancel();
    let mut forged = post(&path);
    let headers = forged.headers_mut();
    headers.insert("host", "tasks.example".parse().unwrap());
    headers.insert("origin", "https://evil.example".parse().unwrap());
    assert_eq!(
        call(&dashboard, forged).await.status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(runner.stats().aborted, 0);
    assert_eq!(
        call(&dashboard, post(&path)).await.status(),
        StatusCode::NO_CONTENT
    );
    runner.idle().await;
    assert_eq!(runner.stats().aborted, 1);
    assert_eq!(
        call(&dashboard, post(&path)).await.status(),
        StatusCode::NOT_FOUND
    );
    for wrong in ["/cancel", "/cancel?id=", "/cancel?id=x", "/cancel?17"] {
        let response = call(&dashboard, post(wrong)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    let (release, held) = std::sync::mpsc::channel::<()>();
    let blocking = Task::blocking(move || held.recv().unwrap_or_default());
    let id = runner.try_add_task(blocking).unwrap();
    until(|| runner.stats().running == 1).await;
    let path = format!("/cancel?id={id}");
    assert_eq!(
        call(&dashboard, post(&path)).await.status(),
        StatusCode::CONFLICT
    );
    drop(release);
    runner.idle().await;
}

#[tokio::test]
async fn axum_mounts_it_with_and_without_its_prefix() {
    let runner = Runner::new();
    let app = Router::<()>::new()
        .nest_service("/nested", runner.dashboard())
        .route_service("/routed", runner.dashboard())
        .route_service("/routed/{*rest}", runner.dashboard());
    for path in ["/nested", "/nested/", "/routed"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "text/html; charset=utf-8"
        );
    }
    for path in ["/nested/snapshot.json", "/routed/snapshot.json"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(
            response.headers()["content-type"],
            "application/json",
            "{path}"
        );
    }
}
