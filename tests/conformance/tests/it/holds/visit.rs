//! [`Visit`]: one request without a socket, which is polled, times out, or is dropped where its client leaves.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::{Body, Frame};
use tower::{Layer, Service, service_fn};
use tower_background_tasks::{BackgroundTasks, ResponseBody};

use super::{
    actor::{Actor, Case, Handle, Hold, RolledBack},
    tally::Event,
};
use crate::load::Random;

type Answer = Result<Response<ResponseBody<Frames>>, RolledBack>;

pub(super) struct Visit {
    stage: Stage,
    case: Arc<Case>,
}

enum Stage {
    Handler(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Body(Response<ResponseBody<Frames>>),
    Over,
}

impl Visit {
    pub(super) fn random(case: &Arc<Case>, random: &mut Random) -> Self {
        let seed = random.next();
        let future = match random.below(3) {
            0 => attached(case, seed),
            _ => layered(case, seed),
        };
        let times_out = !case.rules.is_threaded && random.below(4) == 0;
        let limit = Duration::from_millis(1 + random.below(15));
        let stage = Stage::Handler(match times_out {
            true => Box::pin(with_timeout(case.clone(), future, limit)),
            false => future,
        });
        let case = case.clone();
        Self { stage, case }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Polls the handler or the body once. What is done is dropped at once, as servers do.
    pub(super) async fn poll_once(&mut self) {
        poll_fn(|cx| {
            self.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        match &mut self.stage {
            Stage::Handler(handler) => {
                match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
                    Ok(Poll::Pending) => {}
                    Ok(Poll::Ready(Ok(response))) => self.stage = Stage::Body(response),
                    Ok(Poll::Ready(Err(RolledBack))) => {
                        self.case.tally.count(Event::GaveUp);
                        self.stage = Stage::Over;
                    }
                    Err(payload) => {
                        self.stage = Stage::Over;
                        self.case.tally.count(Event::HandlerPanicked);
                        let text = payload.downcast_ref::<&str>().copied();
                        if !text.is_some_and(|text| text.starts_with("on purpose")) {
                            let text = format!("a panic: {text:?}");
                            self.case.model.violation(text);
                        }
                    }
                }
            }
            Stage::Body(response) => {
                let polled = Pin::new(response.body_mut()).poll_frame(cx);
                if matches!(polled, Poll::Ready(None)) {
                    self.stage = Stage::Over;
                }
            }
            Stage::Over => {}
        }
    }

    /// The client leaves, and the server drops what there is.
    pub(super) fn leave(&mut self) {
        if let Stage::Handler(_) = self.stage {
            self.case.tally.count(Event::ClientLeft);
        }
        self.stage = Stage::Over;
    }
}

async fn with_timeout(
    case: Arc<Case>,
    future: impl Future<Output = Answer>,
    limit: Duration,
) -> Answer {
    let answer = tokio::time::timeout(limit, future).await;
    answer.unwrap_or_else(|_elapsed| {
        case.tally.count(Event::TimedOut);
        Err(RolledBack)
    })
}

/// A handler without a layer: its stand-alone queue is attached to what it answers.
fn attached(case: &Arc<Case>, seed: u64) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    let case = case.clone();
    Box::pin(async move {
        let own = stand_alone(&case);
        case.kept.lock().unwrap().push(own.clone());
        let mut actor = Actor::handler(&case, seed, vec![own.clone()]);
        let steps = 2 + actor.random.below(8);
        actor.play(steps).await?;
        let response = Response::new(Frames(actor.random.below(3)));
        let request = case.model.request();
        case.model.answered(request);
        if let Some(hold) = actor.holds.first().filter(|_| seed % 5 == 0) {
            // This takes nothing, and so nobody takes the queue itself.
            return Ok(case.runner.attach(response, hold.handle().tasks));
        }
        case.model.moved(own.queue, request, actor.lane);
        Ok(case.runner.attach(response, own.tasks))
    })
}

fn stand_alone(case: &Case) -> Handle {
    Handle {
        queue: case.model.stand_alone(),
        tasks: BackgroundTasks::new(),
    }
}

/// Queues that are in the extensions of a response before there is a request.
struct Prepared {
    extensions: Extensions,
    queue: Handle,
    hold: Option<Hold>,
}

impl Prepared {
    fn random(case: &Case, actor: &mut Actor) -> Self {
        let queue = stand_alone(case);
        let hold = (actor.random.below(2) == 0).then(|| Hold::new(&case.model, &queue));
        // Returned with a response, before or behind its queue, what is held is not released.
        let is_first = actor.random.below(2) == 0;
        let mut response = match &hold {
            Some(hold) if is_first => (hold.handle().tasks, ()).into_response(),
            _ => ().into_response(),
        };
        response = (queue.tasks.clone(), response).into_response();
        if actor.random.below(2) == 0 {
            let second = stand_alone(case);
            case.model.moved(second.queue, queue.queue, actor.lane);
            response = (second.tasks.clone(), response).into_response();
            actor.handles.push(second);
        }
        if let Some(hold) = hold.as_ref().filter(|_| !is_first) {
            response = (hold.handle().tasks, response).into_response();
        }
        Self {
            extensions: response.extensions().clone(),
            queue,
            hold,
        }
    }
}

/// A handler behind the layer.
fn layered(case: &Arc<Case>, seed: u64) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    let mut actor = Actor::handler(case, seed, Vec::new());
    let mut prepared = None;
    if actor.random.below(3) == 0 {
        let mut made = Prepared::random(case, &mut actor);
        actor.handles.push(made.queue.clone());
        actor.holds.extend(made.hold.take());
        prepared = Some(made);
    }
    let mut parts = Some((actor, prepared));
    let mut service = case
        .runner
        .layer()
        .layer(service_fn(move |request: Request<()>| {
            let (actor, prepared) = parts.take().expect("one request");
            handle(actor, prepared, request)
        }));
    Box::pin(async move { service.call(Request::new(())).await })
}

async fn handle(
    mut actor: Actor,
    prepared: Option<Prepared>,
    request: Request<()>,
) -> Result<Response<Frames>, RolledBack> {
    let case = actor.case.clone();
    let tasks = BackgroundTasks::from_extensions(request.extensions()).expect("the layer");
    let queue = case.model.request();
    actor.handles.push(Handle { queue, tasks });
    let returned = (actor.random.below(4) == 0).then(|| stand_alone(&case));
    actor.handles.extend(returned.clone());
    let kept = actor.handles.iter().cloned();
    case.kept.lock().unwrap().extend(kept);
    let steps = 2 + actor.random.below(8);
    actor.play(steps).await?;

    case.model.answered(queue);
    let frames = Frames(actor.random.below(3));
    if let Some(hold) = actor.holds.first() {
        let _ = (hold.handle().tasks, ()).into_response(); // this releases nothing
    }
    if let Some(own) = returned {
        case.model.moved(own.queue, queue, actor.lane);
        let _ = (own.tasks, ()).into_response(); // within the handler, the request's queue takes it
    }
    let mut response = Response::new(frames);
    if let Some(prepared) = prepared {
        case.model.moved(prepared.queue.queue, queue, actor.lane);
        *response.extensions_mut() = prepared.extensions;
    }
    Ok(response)
}

/// A body of so many frames.
pub(super) struct Frames(u64);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match self.0 {
            0 => None,
            _ => {
                self.0 -= 1;
                Some(Ok(Frame::data(Bytes::from_static(b"hello"))))
            }
        })
    }
}
