//! For any script of body events, any consumer, and any moment of adding tasks: handed over once, never early, in order, and
//! the frames go through unchanged.
//!
//! `PROPTEST_CASES=10000 cargo test --package conformance property` runs more cases than the 256 of every day.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use proptest::{collection::vec, option, prelude::*};
use tokio::runtime::Builder;
use tower::{Layer, Service, service_fn};
use tower_background_tasks::{
    BackgroundTasks, BoxError, ResponseEnd, ResponseOutcome, Runner, Task,
};

/// What the body does at a poll. Behind the last of these it gives `None`, again and again.
#[derive(Clone, Debug)]
enum Event {
    Data(usize),
    Trailers,
    Error,
    Pending,
}

/// What the consumer does with the body.
#[derive(Clone, Copy, Debug)]
enum Consumer {
    /// Polls until `None` or an error, and so many times again.
    ToTheEnd { again: usize },
    /// Polls so many times, and drops it.
    Stops { polls: usize },
    /// Polls so many times, and drops it on a thread of its own.
    StopsOnAThread { polls: usize },
}

/// The moments at which a task is added.
#[derive(Clone, Debug)]
struct Moments {
    in_the_handler: usize,
    /// Returned with the response.
    attached: usize,
    /// Before these polls.
    before_polls: Vec<usize>,
    after_the_drop: usize,
    /// By the first task that runs.
    by_a_task: usize,
}

#[derive(Clone, Debug)]
struct Script {
    method: Method,
    status: u16,
    events: Vec<Event>,
    /// What `is_end_stream` says once all data is gone; `None` is the truth.
    end_stream: Option<bool>,
    size_hint: Option<u64>,
    content_length: Option<u64>,
    consumer: Consumer,
    moments: Moments,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => prop_oneof![Just(0), Just(1), 1..100_000_usize].prop_map(Event::Data),
        1 => Just(Event::Trailers),
        1 => Just(Event::Error),
        2 => Just(Event::Pending),
    ];
    vec(event, 0..8)
}

fn consumer() -> impl Strategy<Value = Consumer> {
    prop_oneof![
        (0..3_usize).prop_map(|again| Consumer::ToTheEnd { again }),
        (0..10_usize).prop_map(|polls| Consumer::Stops { polls }),
        (0..10_usize).prop_map(|polls| Consumer::StopsOnAThread { polls }),
    ]
}

fn moments() -> impl Strategy<Value = Moments> {
    (
        0..3_usize,
        0..3_usize,
        vec(0..10_usize, 0..3),
        0..3_usize,
        0..2_usize,
    )
        .prop_map(
            |(in_the_handler, attached, before_polls, after_the_drop, by_a_task)| Moments {
                in_the_handler,
                attached,
                before_polls,
                after_the_drop,
                by_a_task,
            },
        )
}

fn scripts() -> impl Strategy<Value = Script> {
    let methods = prop_oneof![4 => Just(Method::GET), 1 => Just(Method::HEAD)];
    let statuses = prop_oneof![4 => Just(200), 1 => Just(204), 1 => Just(304), 1 => Just(500)];
    let lengths = || option::of(prop_oneof![0..4_u64, 0..200_000_u64]);
    let end_stream = option::of(any::<bool>());
    (
        methods,
        statuses,
        events(),
        end_stream,
        lengths(),
        lengths(),
        consumer(),
        moments(),
    )
        .prop_map(
            |(method, status, events, end_stream, size_hint, content_length, consumer, moments)| {
                Script {
                    method,
                    status,
                    events,
                    end_stream,
                    size_hint,
                    content_length,
                    consumer,
                    moments,
                }
            },
        )
}

/// What a poll gave, to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data(Bytes),
    Trailers,
    Error,
    Pending,
    None,
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Happened {
    Polled,
    /// The consumer dropped the body.
    Dropped,
    Ran(usize),
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Happened>>>);

impl Log {
    fn write(&self, happened: Happened) {
        self.0.lock().unwrap().push(happened);
    }
}

struct ScriptedBody {
    events: VecDeque<Event>,
    end_stream: Option<bool>,
    size_hint: Option<u64>,
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.events.pop_front() {
            None => Poll::Ready(None),
            Some(Event::Pending) => Poll::Pending,
            Some(Event::Error) => Poll::Ready(Some(Err("on purpose".into()))),
            Some(Event::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            Some(Event::Data(size)) => {
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![size as u8; size])))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end_stream.unwrap_or(self.events.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn see(polled: &Poll<Option<Result<Frame<Bytes>, BoxError>>>) -> Seen {
    match polled {
        Poll::Pending => Seen::Pending,
        Poll::Ready(None) => Seen::None,
        Poll::Ready(Some(Err(_))) => Seen::Error,
        Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
            Some(data) => Seen::Data(data.clone()),
            None => Seen::Trailers,
        },
    }
}

/// Consumes a body as the script says. `before_poll` is told the number of each poll.
fn consume<B>(body: B, consumer: Consumer, log: &Log, before_poll: impl Fn(usize)) -> Vec<Seen>
where
    B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let mut body = Box::pin(body);
    let mut cx = Context::from_waker(Waker::noop());
    let (mut seen, mut ended, mut polls) = (Vec::new(), 0, 0);
    let go_on = |polls, ended| match consumer {
        Consumer::ToTheEnd { again } => ended <= again,
        Consumer::Stops { polls: limit } | Consumer::StopsOnAThread { polls: limit } => {
            polls < limit
        }
    };
    while go_on(polls, ended) {
        before_poll(polls);
        log.write(Happened::Polled);
        let one = see(&body.as_mut().poll_frame(&mut cx));
        ended += usize::from(matches!(one, Seen::None | Seen::Error));
        seen.push(one);
        polls += 1;
    }
    log.write(Happened::Dropped);
    match consumer {
        Consumer::StopsOnAThread { .. } => std::thread::spawn(|| drop(body)).join().unwrap(),
        _ => drop(body),
    }
    seen
}

/// What the response's end must be, by the script alone.
fn expected_end(script: &Script, seen: &[Seen]) -> ResponseEnd {
    // The first error or `None` is the end; without one, the drop decides.
    let ending = seen
        .iter()
        .find(|one| matches!(one, Seen::None | Seen::Error));
    match ending {
        Some(Seen::Error) => return ResponseEnd::BodyFailed,
        Some(_) => return ResponseEnd::Completed,
        None => {}
    }
    let no_content = script.method == Method::HEAD || matches!(script.status, 204 | 304);
    let says_so_after = |polls: usize| script.end_stream.unwrap_or(polls >= script.events.len());
    let said_so = says_so_after(0)
        || seen.iter().enumerate().any(|(poll, one)| match one {
            Seen::Data(_) => says_so_after(poll + 1),
            Seen::Trailers => true,
            _ => false,
        });
    let reached = script
        .content_length
        .or(script.size_hint)
        .is_some_and(|length| bytes(seen) >= length);
    if no_content || said_so || reached {
        ResponseEnd::Completed
    } else {
        ResponseEnd::Aborted
    }
}

fn bytes(seen: &[Seen]) -> u64 {
    let sizes = seen.iter().map(|one| match one {
        Seen::Data(data) => data.len() as u64,
        _ => 0,
    });
    sizes.sum()
}

/// Up to the poll that gave the end; what a body gives behind its end does not count.
fn until_the_end(seen: &[Seen]) -> &[Seen] {
    let end = seen
        .iter()
        .position(|one| matches!(one, Seen::None | Seen::Error));
    &seen[..end.map_or(seen.len(), |end| end + 1)]
}

struct Run {
    log: Vec<Happened>,
    seen: Vec<Seen>,
    /// What each task saw.
    outcomes: Vec<ResponseOutcome>,
    /// Tasks by number, in the order in which they must run.
    added: usize,
}

/// Plays the script on a runtime of one thread, where tasks get their turn before each poll and at the end.
fn play(script: &Script) -> Run {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (log, outcomes) = (Log::default(), Arc::new(Mutex::new(Vec::new())));
    let runner = Runner::new();
    let count = Mutex::new(0);
    let number = || {
        let mut count = count.lock().unwrap();
        *count += 1;
        *count - 1
    };
    let task = |number: usize| {
        let (log, outcomes) = (log.clone(), outcomes.clone());
        Task::with_context(move |cx| async move {
            log.write(Happened::Ran(number));
            outcomes
                .lock()
                .unwrap()
                .push(cx.response().unwrap().clone());
        })
    };
    let moments = &script.moments;
    let kept = Mutex::new(None);
    let mut body = Some(ScriptedBody {
        events: script.events.clone().into(),
        end_stream: script.end_stream,
        size_hint: script.size_hint,
    });
    let mut service = runner.layer().layer(service_fn(|request: Request<()>| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        for _ in 0..moments.in_the_handler {
            tasks.add_task(task(number()));
        }
        let mut response = Response::builder().status(script.status);
        if let Some(length) = script.content_length {
            response = response.header("content-length", length);
        }
        let mut response = response.body(body.take().unwrap()).unwrap();
        let attached = BackgroundTasks::new();
        for _ in 0..moments.attached {
            attached.add_task(task(number()));
        }
        *kept.lock().unwrap() = Some(tasks);
        attach(&mut response, attached);
        ready(Ok::<_, Infallible>(response))
    }));
    let seen = runtime.block_on(async {
        let request = Request::builder().method(&script.method).body(()).unwrap();
        let response = service.call(request).await.unwrap();
        assert_eq!(
            response.status(),
            StatusCode::from_u16(script.status).unwrap()
        );
        let tasks = kept.lock().unwrap().take().unwrap();
        if moments.by_a_task > 0 {
            // It holds the queue that holds it, until it has run.
            let (again, nested) = (tasks.clone(), task(usize::MAX));
            tasks.add_task(async move { again.add_task(nested) });
        }
        let seen = consume(response.into_body(), script.consumer, &log, |poll| {
            for _ in moments
                .before_polls
                .iter()
                .filter(|before| **before == poll)
            {
                tasks.add_task(task(number()));
            }
            turn();
        });
        for _ in 0..moments.after_the_drop {
            tasks.add_task(task(number()));
        }
        runner.idle().await;
        seen
    });
    drop(service);
    let stats = runner.stats();
    assert_eq!(stats.added, stats.completed);
    let log = log.0.lock().unwrap().clone();
    let outcomes = outcomes.lock().unwrap().clone();
    let added = *count.lock().unwrap();
    Run {
        log,
        seen,
        outcomes,
        added,
    }
}
