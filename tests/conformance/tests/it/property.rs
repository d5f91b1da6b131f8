//! For any script of body events, any consumer, and any moment of adding tasks: handed over once, never early, in order, and
//! the frames go through unchanged.
//!
//! `PROPTEST_CASES=10000 cargo test --package conformance property` runs more cases than the 256 of every day.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
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
    /// Polls until `None` or an error, and so many times again. Then drops it, at once or when tasks have had their turn.
    ToTheEnd { again: usize, at_once: bool },
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
        (0..3_usize, any::<bool>())
            .prop_map(|(again, at_once)| Consumer::ToTheEnd { again, at_once }),
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
    Began(usize),
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
async fn consume<B>(
    body: B,
    consumer: Consumer,
    log: &Log,
    before_poll: impl AsyncFn(usize),
) -> Vec<Seen>
where
    B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let mut body = Box::pin(body);
    let mut cx = Context::from_waker(Waker::noop());
    let (mut seen, mut ended, mut polls) = (Vec::new(), 0, 0);
    let go_on = |polls, ended| match consumer {
        Consumer::ToTheEnd { again, .. } => ended <= again,
        Consumer::Stops { polls: limit } | Consumer::StopsOnAThread { polls: limit } => {
            polls < limit
        }
    };
    while go_on(polls, ended) {
        before_poll(polls).await;
        log.write(Happened::Polled);
        let one = see(&body.as_mut().poll_frame(&mut cx));
        ended += usize::from(matches!(one, Seen::None | Seen::Error));
        seen.push(one);
        polls += 1;
    }
    if !matches!(consumer, Consumer::ToTheEnd { at_once: true, .. }) {
        before_poll(polls).await;
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
    let seen = until_the_end(seen);
    let declared = script.size_hint.or(script.content_length);
    let no_content = script.method == Method::HEAD || matches!(script.status, 204 | 304);
    let nothing_owed = no_content || says_it_ended(script, seen);
    // The first error or `None` is the end; without one, the drop decides.
    match seen.last() {
        Some(Seen::Error) => ResponseEnd::BodyFailed,
        Some(Seen::None)
            if !nothing_owed && declared.is_some_and(|length| bytes(seen) < length) =>
        {
            ResponseEnd::BodyFailed
        }
        Some(Seen::None) => ResponseEnd::Completed,
        _ if nothing_owed || declared.is_some_and(|length| bytes(seen) >= length) => {
            ResponseEnd::Completed
        }
        _ => ResponseEnd::Aborted,
    }
}

/// Trailers went by, or `is_end_stream` was true before the first poll or behind a frame.
fn says_it_ended(script: &Script, seen: &[Seen]) -> bool {
    let says_so_after = |polls: usize| script.end_stream.unwrap_or(polls >= script.events.len());
    says_so_after(0)
        || seen.iter().enumerate().any(|(poll, one)| match one {
            Seen::Data(_) => says_so_after(poll + 1),
            Seen::Trailers => true,
            _ => false,
        })
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

/// What a play of a script left behind.
struct Play {
    log: Vec<Happened>,
    seen: Vec<Seen>,
    /// What each task saw.
    outcomes: Vec<ResponseOutcome>,
    /// Tasks are numbered from 0 in the order in which they must run.
    tasks: usize,
}

/// The task that a running task adds; it runs behind whatever is queued at that time.
const NESTED: usize = usize::MAX;

/// Plays the script on a runtime of one thread, where tasks get their turn before each poll and at the end.
fn play(script: &Script) -> Play {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (log, outcomes) = (Log::default(), Arc::new(Mutex::new(Vec::new())));
    let (runner, count, kept) = (Runner::new(), Cell::new(0), RefCell::new(None));
    let moments = &script.moments;
    let task = |number: usize| {
        let (log, outcomes) = (log.clone(), outcomes.clone());
        Task::with_context(move |cx| async move {
            log.write(Happened::Began(number));
            tokio::task::yield_now().await;
            log.write(Happened::Ran(number));
            outcomes
                .lock()
                .unwrap()
                .push(cx.response().unwrap().clone());
        })
    };
    let add = |tasks: &BackgroundTasks, how_many: usize| {
        for _ in 0..how_many {
            tasks.add_task(task(count.replace(count.get() + 1)));
        }
    };
    let mut service = runner.layer().layer(service_fn(|request: Request<()>| {
        let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
        add(&tasks, moments.in_the_handler);
        let attached = BackgroundTasks::new();
        add(&attached, moments.attached);
        kept.replace(Some(tasks));
        ready(Ok::<_, Infallible>(script.response(attached)))
    }));
    let seen = runtime.block_on(async {
        let request = Request::builder().method(&script.method).body(()).unwrap();
        let response = service.call(request).await.unwrap();
        assert_eq!(response.status(), script.status);
        let body = response.into_body();
        assert_eq!(body.is_end_stream(), script.body().is_end_stream());
        assert_eq!(body.size_hint().exact(), script.body().size_hint().exact());
        let tasks = kept.take().unwrap();
        for _ in 0..moments.by_a_task {
            // It holds the queue that holds it, until it has run.
            let (again, nested) = (tasks.clone(), task(NESTED));
            tasks.add_task(Task::new(async move { again.add_task(nested) }));
        }
        let seen = consume(body, script.consumer, &log, async |poll| {
            let now = moments
                .before_polls
                .iter()
                .filter(|before| **before == poll);
            add(&tasks, now.count());
            for _ in 0..60 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        add(&tasks, moments.after_the_drop);
        runner.idle().await;
        add(&tasks, moments.after_the_drop);
        runner.idle().await;
        seen
    });
    let stats = runner.stats();
    assert_eq!(stats.added, stats.completed);
    drop((service, runtime));
    let log = log.0.lock().unwrap().clone();
    let outcomes = outcomes.lock().unwrap().clone();
    Play {
        log,
        seen,
        outcomes,
        tasks: count.get(),
    }
}

impl Script {
    fn body(&self) -> ScriptedBody {
        ScriptedBody {
            events: self.events.clone().into(),
            end_stream: self.end_stream,
            size_hint: self.size_hint,
        }
    }

    fn response(&self, attached: BackgroundTasks) -> Response<ScriptedBody> {
        let mut response = Response::builder().status(self.status);
        if let Some(length) = self.content_length {
            response = response.header("content-length", length);
        }
        let mut response = response.body(self.body()).unwrap();
        *response.extensions_mut() = (attached, ()).into_response().extensions().clone();
        response
    }

    /// What the consumer sees without the layer.
    fn seen_bare(&self) -> Vec<Seen> {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(consume(
            self.body(),
            self.consumer,
            &Log::default(),
            async |_| (),
        ))
    }
}

/// Where in the log the response ended: at the poll that gave `None` or an error, or at the drop.
fn end_in(play: &Play) -> usize {
    let ending_poll = play
        .seen
        .iter()
        .position(|one| matches!(one, Seen::None | Seen::Error));
    let mut polls = (0..play.log.len()).filter(|at| play.log[*at] == Happened::Polled);
    match ending_poll {
        Some(poll) => polls.nth(poll).unwrap(),
        None => play
            .log
            .iter()
            .position(|happened| *happened == Happened::Dropped)
            .unwrap(),
    }
}

proptest! {
    #[test]
    fn tasks_run_once_in_order_never_early_and_frames_unchanged(
        script in scripts()
    ) {
        let play = play(&script);
        prop_assert_eq!(&play.seen, &script.seen_bare());

        let ran: Vec<_> = (0..play.log.len())
            .filter_map(|at| match play.log[at] {
                Happened::Ran(number) => Some((at, number)),
                _ => None,
            })
            .collect();
        let end = end_in(&play);
        for (at, number) in &ran {
            prop_assert!(*at > end, "early: {:?}", play.log);
            let before = play.log[..*at].iter().rev().find(|happened| {
                matches!(happened, Happened::Began(_) | Happened::Ran(_))
            });
            prop_assert_eq!(before, Some(&Happened::Began(*number)), "overlap: {:?}", play.log);
        }
        // At an end that the body tells, tasks run at once, not when it is dropped.
        let dropped = play.log.iter().position(|happened| *happened == Happened::Dropped).unwrap();
        let in_the_handler = script.moments.in_the_handler + script.moments.attached;
        if end < dropped && !matches!(script.consumer, Consumer::ToTheEnd { at_once: true, .. }) {
            let ran_by_then = ran.iter().filter(|(at, _)| *at < dropped).count();
            prop_assert!(ran_by_then >= in_the_handler, "late: {:?}", play.log);
        }

        let (nested, numbers): (Vec<usize>, Vec<usize>) =
            ran.iter().map(|(_, number)| *number).partition(|number| *number == NESTED);
        prop_assert_eq!(nested.len(), script.moments.by_a_task);
        prop_assert_eq!(numbers, (0..play.tasks).collect::<Vec<_>>());

        for outcome in &play.outcomes {
            prop_assert_eq!(outcome.end, expected_end(&script, &play.seen));
            prop_assert_eq!(outcome.status.unwrap(), script.status);
            prop_assert_eq!(outcome.body_bytes, bytes(until_the_end(&play.seen)));
        }
    }
}
