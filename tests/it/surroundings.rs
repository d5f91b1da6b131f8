//! What surrounds a task: values of its request, task-locals, its request itself.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderName, Request};
use tower::{Layer, ServiceExt, service_fn};
use tower_background_tasks::{
    BackgroundTasks, Order, Ran, Runner, RunnerBuilder, Task, TaskContext,
};

use crate::support::{
    Log, PanicsWhenDropped, full, get, open_response, read_all, respond, soon, until,
};

#[derive(Clone)]
struct Tenant(Arc<str>);

tokio::task_local! {
    static TENANT: Arc<str>;
}

fn tenant() -> String {
    let tenant = TENANT.try_with(Arc::clone);
    tenant.map_or_else(|_| "nobody".into(), |tenant| tenant.to_string())
}

fn captured(cx: &TaskContext) -> String {
    let tenant = cx.get::<Tenant>();
    tenant.map_or_else(|| "nobody".into(), |Tenant(name)| name.to_string())
}

fn builder() -> RunnerBuilder {
    Runner::builder()
        .capture(|request| {
            Some(Tenant(
                request.headers.get("x-tenant")?.to_str().ok()?.into(),
            ))
        })
        .around(|cx, next| match cx.get() {
            Some(Tenant(name)) => TENANT.sync_scope(Arc::clone(name), || next.run()),
            None => next.run(),
        })
}

fn of(tenant: &'static str) -> Request<()> {
    let mut request = get("/orders?secret=1");
    let headers = request.headers_mut();
    headers.insert("x-tenant", tenant.parse().unwrap());
    request
}

/// Writes the tenant when it is dropped.
struct WritesWhenDropped(Log);

impl Drop for WritesWhenDropped {
    fn drop(&mut self) {
        self.0.write(format!("dropped for {}", tenant()));
    }
}

#[tokio::test]
async fn each_kind_of_task_is_surrounded_by_its_requests_tenant() {
    for order in [Order::Sequential, Order::Concurrent] {
        for limited in [false, true] {
            let (log, mut builder) = (Log::default(), builder().order(order));
            if limited {
                builder = builder.max_running(1);
            }
            let runner = builder.build();
            let writes = |kind: &'static str| {
                let log = log.clone();
                move || log.write(format!("{kind} {}", tenant()))
            };
            let add = |tasks: BackgroundTasks| {
                let (first, second) = (writes("async"), writes("async, later"));
                tasks.add_task(async move {
                    first();
                    tokio::task::yield_now().await;
                    second();
                });
                tasks.add_blocking_task(writes("blocking"));
                tasks.add_task(Task::blocking(writes("supervised")).timeout(Duration::MAX));
                let log = log.clone();
                tasks.add_task(Task::with_context(async move |cx| {
                    log.write(format!("context {} {}", tenant(), captured(&cx)));
                }));
                let held = tasks.hold();
                held.add_blocking_task(writes("held"));
                held.release();
                let (late, writes) = (tasks.clone(), writes("late"));
                tasks.add_task(async move { late.add_task(async move { writes() }) });
                full("hello")
            };
            drop(respond(&runner, of("ferris"), add).await);
            soon(runner.idle()).await;
            let mut lines = log.lines();
            lines.sort();
            assert_eq!(
                lines,
                [
                    "async ferris",
                    "async, later ferris",
                    "blocking ferris",
                    "context ferris ferris",
                    "held ferris",
                    "late ferris",
                    "supervised ferris"
                ]
            );
            assert_eq!(tenant(), "nobody", "it is taken down again");
        }
    }
}

#[tokio::test]
async fn two_requests_do_not_mix() {
    let (runner, log) = (builder().build(), Log::default());
    let mut responses = Vec::new();
    for name in ["ferris", "corro"] {
        let response = respond(&runner, of(name), |tasks| {
            let log = log.clone();
            tasks.add_task(async move {
                for _ in 0..3 {
                    assert_eq!(tenant(), name);
                    tokio::task::yield_now().await;
                }
                log.write(tenant());
            });
            full("hello")
        });
        responses.push(response.await);
    }
    drop(responses);
    soon(runner.idle()).await;
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(lines, ["corro", "ferris"]);
}

#[tokio::test]
async fn a_task_of_no_request_gets_nothing() {
    let (runner, log) = (builder().build(), Log::default());
    let task = |name: &'static str| {
        let log = log.clone();
        Task::with_context(async move |cx| {
            let has_request = cx.request().is_some();
            log.write(format!("{name} {} {has_request}", captured(&cx)));
        })
    };
    runner.add_task(task("runner"));
    let (response, tasks) = open_response(&runner);
    tasks.add_task(task("attached"));
    drop(response);
    soon(runner.idle()).await;
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(lines, ["attached nobody false", "runner nobody false"]);
}

#[tokio::test(start_paused = true)]
async fn the_destructor_of_a_task_cut_short_is_surrounded() {
    let (runner, log) = (builder().build(), Log::default());
    let response = respond(&runner, of("ferris"), |tasks| {
        let writes = WritesWhenDropped(log.clone());
        let stuck = async move {
            let _writes = writes;
            std::future::pending::<()>().await;
        };
        tasks.add_task(Task::new(stuck).timeout(Duration::from_secs(1)));
        full("hello")
    });
    drop(response.await);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["dropped for ferris"]);
    assert_eq!(runner.stats().timed_out, 1);
}

#[tokio::test(start_paused = true)]
async fn the_destructor_of_a_cancelled_task_has_its_name() {
    let (log, names) = (Log::default(), Log::default());
    let writes = names.clone();
    let runner = Runner::builder()
        .around(move |cx, next| {
            writes.write(cx.name());
            next.run()
        })
        .build();
    let writes = WritesWhenDropped(log.clone());
    let stuck = async move {
        let _writes = writes;
        std::future::pending::<()>().await;
    };
    let id = runner.try_add_task(Task::new(stuck).named("mail")).unwrap();
    until(|| runner.stats().running == 1).await;
    assert!(runner.cancel(id));
    until(|| log.lines().len() == 1).await;
    assert_eq!(names.lines(), ["mail", "mail"], "a poll and the destructor");
}

#[tokio::test]
async fn a_captured_value_may_panic_when_dropped() {
    let runner = Runner::builder()
        .capture(|_| Some(Arc::new(PanicsWhenDropped)))
        .build();
    let response = respond(&runner, get("/"), |tasks| {
        tasks.add_task(async {});
        full("hello")
    });
    assert_eq!(read_all(response.await).await, "hello");
    soon(runner.idle()).await;
    let panics = runner.layer().layer(service_fn(async |_: Request<()>| {
        panic!("on purpose: a handler");
        #[expect(unreachable_code, reason = "its type")]
        Ok::<_, Infallible>(full("never"))
    }));
    // Two panics at once would abort the process.
    let panic = tokio::spawn(async { drop(panics.oneshot(get("/")).await) });
    assert!(panic.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn the_first_around_is_the_outer_one() {
    let log = Log::default();
    let around = |name: &'static str| {
        let log = log.clone();
        move |_: &TaskContext, next: tower_background_tasks::Next<'_>| {
            log.write(format!("{name} in"));
            let ran = next.run();
            log.write(format!("{name} out"));
            ran
        }
    };
    let builder = Runner::builder().around(around("outer"));
    let runner = builder.around(around("inner")).build();
    runner.add_task(log.task("task"));
    soon(runner.idle()).await;
    let expected = ["outer in", "inner in", "task", "inner out", "outer out"];
    assert_eq!(log.lines(), expected);
}

#[tokio::test]
async fn a_panic_around_a_task_is_the_tasks_end() {
    for before in [true, false] {
        let log = Log::default();
        let builder = Runner::builder().around(move |cx, next| {
            let is_bad = cx.name() == "bad";
            assert!(!(is_bad && before), "on purpose: around");
            let ran = next.run();
            assert!(!is_bad, "on purpose: around");
            ran
        });
        let runner = builder.build();
        let (response, tasks) = open_response(&runner);
        let writes = WritesWhenDropped(log.clone());
        tasks.add_task(Task::new(async move { drop(writes) }).named("bad"));
        tasks.add_task(log.task("good"));
        drop(response);
        soon(runner.idle()).await;
        assert_eq!(log.lines(), ["dropped for nobody", "good"]);
        assert_eq!((runner.stats().panicked, runner.stats().completed), (1, 1));
    }
}

/// Both destructors panic, one of them while the other panic unwinds.
#[tokio::test]
async fn a_task_that_panics_when_dropped_survives_a_panic_around() {
    let runner = Runner::builder()
        .around(|_, _| panic!("on purpose: around"))
        .build();
    let bad = crate::support::PanicsWhenDropped;
    runner.add_task(async move { drop(bad) });
    soon(runner.idle()).await;
    assert_eq!(runner.stats().panicked, 1);
}

#[tokio::test]
async fn a_task_that_was_not_run_fails_and_says_so() {
    let (kept, ends) = (Mutex::new(None::<Ran>), Log::default());
    let told = ends.clone();
    let runner = Runner::builder()
        .around(move |cx, next| {
            let mut kept = kept.lock().unwrap();
            match kept.take() {
                Some(ran) => return ran,
                None if cx.name() == "second" => return next.run(), // it is dropped
                None => *kept = Some(next.run()),
            }
            drop(kept);
            panic!("on purpose: what was to be returned is kept")
        })
        .on_task_end(move |report| told.write(format!("{} {:?}", report.name(), report.end())))
        .build();
    runner.add_task(Task::new(async {}).named("first"));
    soon(runner.idle()).await;
    runner.add_task(Task::new(async {}).named("second"));
    soon(runner.idle()).await;
    let second = &ends.lines()[1];
    assert!(second.contains("RunnerBuilder::around"), "{second}");
    assert_eq!(runner.stats().failed, 1);
}

#[tokio::test]
async fn an_observer_knows_the_request_and_what_was_captured() {
    let log = Log::default();
    let told = log.clone();
    let builder = builder().on_task_end(move |report| {
        let tenant = report.get::<Tenant>().map(|Tenant(name)| name.to_string());
        let path = report.request().and_then(|request| request.path());
        told.write(format!("{} {tenant:?} {path:?}", report.name()));
    });
    let runner = builder.build();
    for request in [of("ferris"), get("/")] {
        let response = respond(&runner, request, |tasks| {
            tasks.add_task(Task::new(async {}).named("mail"));
            full("hello")
        });
        drop(response.await);
        soon(runner.idle()).await;
    }
    runner.add_task(Task::new(async {}).named("cron"));
    soon(runner.idle()).await;
    let expected = [
        "mail Some(\"ferris\") Some(\"/orders\")",
        "mail None Some(\"/\")",
        "cron None None",
    ];
    assert_eq!(log.lines(), expected);
}

#[tokio::test]
async fn a_task_knows_its_requests_method_path_and_id() {
    let header = HeaderName::from_static("x-request-id");
    let (runner, log) = (
        Runner::builder().request_id_header(header).build(),
        Log::default(),
    );
    let mut request = of("ferris");
    *request.method_mut() = http::Method::POST;
    let headers = request.headers_mut();
    headers.insert("x-request-id", "a-1".parse().unwrap());
    let response = respond(&runner, request, |tasks| {
        let log = log.clone();
        tasks.add_task(Task::with_context(async move |cx| {
            let request = cx.request().unwrap();
            let (path, id) = (request.path().unwrap(), request.id().unwrap());
            log.write(format!("{} {path} {id}", request.method()));
        }));
        full("hello")
    });
    drop(response.await);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["POST /orders a-1"]);
}

#[cfg(feature = "jobs")]
#[tokio::test]
async fn a_job_run_here_is_surrounded_and_knows_what_was_captured() {
    use serde::{Deserialize, Serialize};
    use tower_background_tasks::{Job, JobContext, Jobs, TaskResult};

    #[derive(Serialize, Deserialize)]
    struct Mail;

    impl Job for Mail {
        const NAME: &'static str = "mail";
        type State = Log;

        async fn run(self, log: Log, cx: JobContext) -> TaskResult {
            tokio::task::yield_now().await;
            log.write(format!("{} {}", tenant(), captured(cx.task().unwrap())));
            Ok(())
        }
    }

    let log = Log::default();
    let jobs = Jobs::new(log.clone()).register::<Mail>();
    let runner = builder().jobs(jobs).build();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let response = respond(&runner, of("ferris"), |tasks| {
        sender.send(tasks).unwrap();
        full("hello")
    });
    let response = response.await;
    receiver.recv().await.unwrap().add_job(Mail).await.unwrap();
    drop(response);
    soon(runner.idle()).await;
    assert_eq!(log.lines(), ["ferris ferris"]);
}
