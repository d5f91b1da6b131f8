//! Every row of the table, over every version of HTTP it is for, on every kind of server, by every way in.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, StreamExt, stream};
use http::Request;
use tokio::sync::{
    Notify,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tower::{Layer, service_fn};
use tower_background_tasks::{BackgroundTasks, BoxError, ResponseOutcome, Runner, Task};

use crate::{
    clients::Visit,
    rows::{Client, Gate, Gone, LateTask, Row, Stack, Telling, Version, boxed, rows},
    servers::{Server, ServerKind, Service},
    support::soon,
};

/// How tasks come to their request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The layer, and the extractor (axum) or `from_extensions` (hyper).
    Layer,
    /// The layer, and tasks returned with the response.
    Returned,
    /// `Runner::attach`, and no layer.
    Attached,
    /// Ten layers around one another, and a task for each.
    Nested,
}

impl Way {
    const ALL: [Self; 4] = [Self::Layer, Self::Returned, Self::Attached, Self::Nested];

    fn is_for(self, row: &Row) -> bool {
        let handler_responds = row.status.is_some() && row.stack != Stack::CatchPanicInside;
        match self {
            Self::Layer | Self::Nested => true,
            Self::Returned => handler_responds,
            // Attached at the handler, nothing stands inside, and nobody knows the method.
            Self::Attached => {
                handler_responds
                    && row.stack != Stack::CompressionInside
                    && !matches!(row.method, "HEAD" | "CONNECT")
            }
        }
    }
}

/// Layers around one another where they are nested.
const LAYERS: u64 = 10;

/// Where the tasks of one case tell what they saw.
#[derive(Clone)]
struct Tell {
    /// The body of the one response, where there is only one, has not ended.
    body_is_alive: Arc<AtomicBool>,
    outcome: UnboundedSender<Option<ResponseOutcome>>,
    reached: UnboundedSender<()>,
}

impl Tell {
    /// A task that runs however the response ended, and tells.
    fn task(&self) -> Task {
        let (outcome, body_is_alive) = (self.outcome.clone(), self.body_is_alive.clone());
        Task::with_context(move |cx| async move {
            assert!(
                !body_is_alive.load(Ordering::SeqCst),
                "before the end of the body"
            );
            let _ = outcome.send(cx.response().cloned());
        })
        .run_if(|_| true)
    }
}

#[derive(Clone, Copy)]
struct Case<'a> {
    row: &'a Row,
    version: Version,
    kind: ServerKind,
    way: Way,
}

impl Case<'_> {
    fn name(&self) -> String {
        let Self {
            row,
            version,
            kind,
            way,
        } = self;
        format!("{:?} {kind:?} {way:?}: {}", version, row.name)
    }

    fn service(&self, runner: &Runner, outer: &Runner, tell: &Tell, gate: &Gate) -> Service {
        let (handler, way, kind) = (self.row.handler, self.way, self.kind);
        let one_response = self.row.requests() == 1;
        let (handler_tell, handler_runner, gate) = (tell.clone(), runner.clone(), gate.clone());
        let service = boxed(service_fn(move |mut request: Request<Body>| {
            let (tell, runner, gate) = (handler_tell.clone(), handler_runner.clone(), gate.clone());
            async move {
                let late = tell.clone();
                request.extensions_mut().insert(gate);
                request
                    .extensions_mut()
                    .insert(LateTask(Arc::new(move || late.task())));
                let (mut head, body) = request.into_parts();
                if matches!(way, Way::Layer | Way::Nested) {
                    let tasks = match kind {
                        ServerKind::AxumServe => {
                            BackgroundTasks::from_request_parts(&mut head, &()).await?
                        }
                        ServerKind::HyperAuto => {
                            BackgroundTasks::from_extensions(&head.extensions)?
                        }
                    };
                    tasks.add_task(tell.task());
                }
                let _ = tell.reached.send(());
                let mut response = handler(Request::from_parts(head, body)).await?;
                if one_response {
                    response =
                        response.map(|body| Body::new(Telling::new(body, &tell.body_is_alive)));
                }
                let tasks = BackgroundTasks::new();
                Ok::<Response, BoxError>(match way {
                    Way::Layer | Way::Nested => response,
                    Way::Returned => {
                        tasks.add_task(tell.task());
                        (tasks, response).into_response()
                    }
                    Way::Attached => {
                        tasks.add_task(tell.task());
                        runner.attach(response, tasks).map(Body::new)
                    }
                })
            }
        }));
        let mut service = self.row.stack.inside(service);
        if way != Way::Attached {
            service = boxed(runner.layer().layer(service));
        }
        for _ in 1..if way == Way::Nested { LAYERS } else { 1 } {
            let (tell, inner) = (tell.clone(), service);
            let adds_a_task = service_fn(move |request: Request<Body>| {
                let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
                tasks.add_task(tell.task());
                tower::Service::call(&mut inner.clone(), request)
            });
            service = boxed(outer.layer().layer(adds_a_task));
        }
        self.row.stack.outside(service)
    }

    async fn check_in_time(self) {
        let checked = tokio::time::timeout(Duration::from_secs(40), self.check()).await;
        checked.unwrap_or_else(|_| panic!("{} takes too long", self.name()));
    }

    /// Makes the visit, and checks that each request fired once, with the outcome that the row says.
    async fn check(self) {
        let (runner, outer) = (Runner::new(), Runner::new());
        let (outcome, mut outcomes) = unbounded_channel();
        let (reached, mut is_reached) = unbounded_channel();
        let (tell, gate) = (
            Tell {
                body_is_alive: Arc::default(),
                outcome,
                reached,
            },
            Gate(Arc::new(Notify::new())),
        );
        let server = Server::start(self.kind, self.service(&runner, &outer, &tell, &gate)).await;
        let visit = Visit {
            server: &server,
            row: self.row,
            version: self.version,
        };
        let in_the_handler = async { soon(is_reached.recv()).await.unwrap() };
        let connection = visit.make(in_the_handler, || gate.0.notify_one()).await;
        self.check_outcomes(&mut outcomes).await;
        drop((connection, server));
        soon(runner.idle()).await;
        soon(outer.idle()).await;
        assert!(outcomes.try_recv().is_err(), "{}: fired twice", self.name());
        let (inner, outer) = (runner.stats(), outer.stats());
        let (added, completed) = (inner.added + outer.added, inner.completed + outer.completed);
        assert_eq!(
            (added, completed),
            (self.tasks(), self.tasks()),
            "{}",
            self.name()
        );
    }

    /// Tasks that are added, and so outcomes that are told.
    fn tasks(&self) -> u64 {
        let of_the_handler = self.row.requests() as u64;
        match (self.way, self.row.client) {
            (Way::Layer, Client::Upgrades) => of_the_handler + 1,
            (Way::Nested, Client::Upgrades) => of_the_handler * LAYERS + 1,
            (Way::Returned, Client::Upgrades) => of_the_handler + 1,
            (Way::Nested, _) => of_the_handler * LAYERS,
            _ => of_the_handler,
        }
    }

    async fn check_outcomes(&self, outcomes: &mut UnboundedReceiver<Option<ResponseOutcome>>) {
        let Row {
            end, status, gone, ..
        } = *self.row;
        for _ in 0..self.tasks() {
            let outcome = soon(outcomes.recv()).await.unwrap().expect("a response");
            let name = self.name();
            assert_eq!(outcome.end, end, "{name}: {outcome:?}");
            assert_eq!(
                outcome.status.map(|status| status.as_u16()),
                status,
                "{name}"
            );
            match gone {
                Gone::Exactly(bytes) => assert_eq!(outcome.body_bytes, bytes, "{name}"),
                Gone::Any => {}
                Gone::Some => assert!(outcome.body_bytes > 0, "{name}"),
            }
        }
    }
}

/// Panics that are part of a row do not fill the terminal.
pub(crate) fn silence_panics_on_purpose() {
    static ONCE: Once = Once::new(); // while one test takes the hook, another's panics would be told
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>();
            if !text.is_some_and(|text| text.starts_with("on purpose")) {
                report(panic);
            }
        }));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_ends_as_it_says_and_fires_once() {
    silence_panics_on_purpose();
    let rows = rows();
    let mut cases = Vec::new();
    for row in &rows {
        for &version in row.versions {
            for kind in [ServerKind::AxumServe, ServerKind::HyperAuto] {
                for way in Way::ALL.into_iter().filter(|way| way.is_for(row)) {
                    cases.push(Case {
                        row,
                        version,
                        kind,
                        way,
                    });
                }
            }
        }
    }
    let count = cases.len();
    // A case that fails has said so in its panic; others are still run, up to ten that fail.
    let failed = stream::iter(cases)
        .map(|case| AssertUnwindSafe(case.check_in_time()).catch_unwind())
        .buffer_unordered(8)
        .filter(|checked| std::future::ready(checked.is_err()))
        .take(10)
        .count()
        .await;
    println!(
        "conformance: {} rows, {count} cases, {failed} failed",
        rows.len()
    );
    assert_eq!(failed, 0);
}
