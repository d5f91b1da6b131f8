//! Random requests without a socket: clients, handlers that add tasks of every kind, and what becomes of their responses.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::{pending, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::Version,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::Request;
use http_body_util::BodyExt;
use tokio::{runtime::Handle, sync::oneshot, task::yield_now, time::sleep};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_background_tasks::{BackgroundTasks, BoxError, ResponseBody, Runner, Task, TaskId};

use super::{
    books::{Books, COMPLETED, FAILED, NOTHING, PANICKED, RequestBook, Token, Traits},
    rules::Rules,
};
use crate::load::Random;

type Answer = http::Response<ResponseBody<Body>>;
type Handler = BoxCloneService<Request<Plan>, Answer, BoxError>;
type Errand = Box<dyn FnOnce() + Send>;

/// How many bodies a client holds at once.
const HELD: usize = 16;
/// How many tasks that may be cancelled are remembered.
const REMEMBERED: usize = 16;

/// What clients, handlers and tasks of one run share. It holds no runner.
pub(super) struct Run {
    pub(super) rules: Rules,
    pub(super) books: Arc<Books>,
    pub(super) requests: AtomicUsize,
    /// Tasks that were added not long ago.
    recent: Mutex<Vec<TaskId>>,
    errands: Sender<Errand>,
    /// Whoever reads or drops a body beside its client holds another one.
    readers: Arc<()>,
}

impl Run {
    pub(super) fn new(rules: &Rules) -> Arc<Self> {
        let books = Arc::new(Books::new(rules.clone()));
        Arc::new(Self {
            rules: rules.clone(),
            errands: foreign_thread(books.clone()),
            books,
            requests: AtomicUsize::new(0),
            recent: Mutex::default(),
            readers: Arc::new(()),
        })
    }

    /// Does something on a thread that no runtime knows.
    fn on_a_foreign_thread(&self, errand: impl FnOnce() + Send + 'static) {
        let _ = self.errands.send(Box::new(errand));
    }

    /// Waits until all that was sent there is done.
    pub(super) fn flush(&self) {
        let (done, is_done) = channel();
        self.on_a_foreign_thread(move || done.send(()).unwrap());
        is_done.recv().unwrap();
    }

    /// Nobody reads a body any more, nor is about to drop one.
    pub(super) fn has_no_readers(&self) -> bool {
        Arc::strong_count(&self.readers) == 1
    }

    fn remember(&self, id: TaskId) {
        if id.as_u64() == 0 {
            return; // no runner knows it yet
        }
        let mut recent = self.recent.lock().unwrap();
        if recent.len() < REMEMBERED {
            recent.push(id);
        } else {
            recent[id.as_u64() as usize % REMEMBERED] = id;
        }
    }

    fn cancel_one(self: &Arc<Self>, runner: &Runner) {
        let Some(id) = self.recent.lock().unwrap().pop() else {
            return;
        };
        let (run, runner) = (self.clone(), runner.clone());
        self.on_a_foreign_thread(move || {
            if runner.cancel(id) {
                run.books.cancelled(id);
            }
        });
    }
}

/// A thread that ends when its run does.
fn foreign_thread(books: Arc<Books>) -> Sender<Errand> {
    let (errands, received) = channel::<Errand>();
    thread::spawn(move || {
        for errand in received {
            if catch_unwind(AssertUnwindSafe(errand)).is_err() {
                books.violation("a panic came out on a foreign thread".into());
            }
        }
    });
    errands
}

/// What the handler of one request is to do.
pub(super) struct Plan {
    random: Random,
    request: Arc<RequestBook>,
}

/// What is left of a request for later.
pub(super) enum Held {
    Body(Answer),
    Queue(Adder),
}

impl Held {
    /// Lets go of it in one of many ways.
    pub(super) fn finish(self, run: &Arc<Run>, random: &mut Random, runtimes: &[Handle]) {
        match self {
            Self::Queue(adder) => run.on_a_foreign_thread(move || adder.add(Kind::any_tame())),
            Self::Body(answer) => finish(answer, run, random, runtimes),
        }
    }
}

fn finish(answer: Answer, run: &Arc<Run>, random: &mut Random, runtimes: &[Handle]) {
    let runtime = random.below(1 + runtimes.len() as u64) as usize;
    let reader = run.readers.clone();
    match (random.below(4), runtimes.get(runtime)) {
        (0, _) => run.on_a_foreign_thread(move || drop(answer)),
        (1, Some(runtime)) => drop(runtime.spawn(async move {
            drop(answer);
            drop(reader);
        })),
        (2, Some(runtime)) => drop(runtime.spawn(async move {
            read(answer).await;
            drop(reader);
        })),
        (3, _) => drop(read(answer).now_or_never()),
        _ => drop(answer),
    }
}

/// To its end, or until it has nothing to give.
async fn read(answer: Answer) {
    let mut body = answer.into_body();
    while let Some(Some(Ok(_))) = body.frame().now_or_never() {
        yield_now().await;
    }
}

/// One client, which sends one request after another.
pub(super) struct Client {
    pub(super) run: Arc<Run>,
    pub(super) runner: Runner,
    pub(super) random: Random,
    pub(super) runtime: usize,
    pub(super) held: Vec<Held>,
}

impl Client {
    pub(super) async fn play(mut self) -> Vec<Held> {
        let (layered, attached) = (self.layered(), self.attached());
        for _ in 0..self.run.rules.requests {
            let handler = match self.random.below(8) {
                0 => &attached,
                _ => &layered,
            };
            self.request(handler.clone()).await;
            self.run.requests.fetch_add(1, SeqCst);
            self.aside().await;
        }
        self.held
    }

    fn layered(&self) -> Handler {
        let run = self.run.clone();
        let service = service_fn(move |request| handle(run.clone(), request));
        BoxCloneService::new(self.runner.layer().layer(service))
    }

    fn attached(&self) -> Handler {
        let (run, runner) = (self.run.clone(), self.runner.clone());
        BoxCloneService::new(service_fn(move |request: Request<Plan>| {
            ready(Ok(attach(&run, &runner, request.into_body())))
        }))
    }

    async fn request(&mut self, mut handler: Handler) {
        let is_concurrent = self.run.rules.is_concurrent;
        let request = Arc::new(RequestBook::new(self.runtime, is_concurrent));
        let message = self.message(&request);
        let handler = handler.ready().await.unwrap();
        let answer = self.wait_for(handler.call(message)).await;
        if let Some(answer) = answer {
            request.responded.store(true, SeqCst);
            self.receive(answer).await;
        }
    }

    fn message(&mut self, request: &Arc<RequestBook>) -> Request<Plan> {
        let mut message = Request::new(Plan {
            random: Random::new(self.random.next()),
            request: request.clone(),
        });
        if self.random.below(2) == 0 {
            *message.version_mut() = Version::HTTP_2;
        }
        message
    }

    /// The response, unless the client leaves before, or there is none.
    async fn wait_for(
        &mut self,
        mut response: BoxFuture<'static, Result<Answer, BoxError>>,
    ) -> Option<Answer> {
        let leaves = self.random.below(32);
        if leaves == 0 {
            return None;
        }
        if leaves <= 2 {
            let polled = AssertUnwindSafe(&mut response)
                .catch_unwind()
                .now_or_never();
            if leaves == 1 && polled.is_none() {
                self.run.on_a_foreign_thread(move || drop(response));
            }
            return polled?.ok()?.ok();
        }
        let waited = AssertUnwindSafe(response).catch_unwind().await;
        waited.ok()?.ok()
    }

    async fn receive(&mut self, mut answer: Answer) {
        if let Some(adder) = answer.extensions_mut().remove::<Arc<Adder>>() {
            self.held.extend(Arc::into_inner(adder).map(Held::Queue));
        }
        match self.random.below(8) {
            0 => self.held.push(Held::Body(answer)),
            1 => self.run.on_a_foreign_thread(move || drop(answer)),
            2 => drop(answer),
            3 => {
                let _ = answer.body_mut().frame().now_or_never();
            }
            _ => read(answer).await,
        }
    }

    /// What a client does between two requests.
    async fn aside(&mut self) {
        if self.held.len() > HELD {
            let index = self.random.below(self.held.len() as u64) as usize;
            let held = self.held.swap_remove(index);
            held.finish(&self.run, &mut self.random, &[Handle::current()]);
        }
        match self.random.below(32) {
            0..=3 => self.run.cancel_one(&self.runner),
            4 => self.add_to_the_runner(),
            5 => sleep(Duration::from_micros(100)).await,
            _ => yield_now().await,
        }
    }

    /// A task of no request.
    fn add_to_the_runner(&mut self) {
        let request = RequestBook::new(self.runtime, true);
        request.responded.store(true, SeqCst); // as good as that
        let adder = Adder {
            run: self.run.clone(),
            request: Arc::new(request),
            tasks: None,
        };
        let (task, number) = adder.task(Kind::tame(&mut self.random), 0);
        self.run.books.accept(number);
        if self.random.below(2) == 0 {
            return self.runner.add_task(task);
        }
        match self.runner.try_add_task(task) {
            Ok(id) => self.run.remember(id),
            Err(_) => self.run.books.take_back(number),
        }
    }
}

/// Behind the layer.
async fn handle(run: Arc<Run>, request: Request<Plan>) -> Result<Response, BoxError> {
    let tasks = queue_of(&request)?;
    let Plan {
        mut random,
        request,
    } = request.into_body();
    let adder = Adder {
        run,
        request,
        tasks: Some(tasks),
    };
    adder.add_some(&mut random, 0);
    wait_somehow(&mut random).await;
    let response = match random.below(64) {
        0 => panic!("on purpose: a handler"),
        1 => return Err("on purpose: a handler's error".into()),
        2..=7 => with_returned_tasks(&adder, &mut random),
        _ => body(&mut random),
    };
    Ok(leave_a_handle(response, adder, &mut random))
}

fn queue_of(request: &Request<Plan>) -> Result<BackgroundTasks, BoxError> {
    Ok(match request.version() {
        Version::HTTP_2 => BackgroundTasks::current().ok_or("no queue")?,
        _ => BackgroundTasks::from_extensions(request.extensions())?,
    })
}

/// Without the layer.
fn attach(run: &Arc<Run>, runner: &Runner, plan: Plan) -> Answer {
    let Plan {
        mut random,
        request,
    } = plan;
    let adder = Adder {
        run: run.clone(),
        request,
        tasks: Some(BackgroundTasks::new()),
    };
    adder.add_some(&mut random, 0);
    let answer = runner.attach(body(&mut random), adder.queue());
    leave_a_handle(answer, adder, &mut random)
}

/// Now and then somebody keeps the request's queue, and adds to it long after the response.
fn leave_a_handle<B>(
    mut response: http::Response<B>,
    adder: Adder,
    random: &mut Random,
) -> http::Response<B> {
    if random.below(8) == 0 {
        response.extensions_mut().insert(Arc::new(adder));
    }
    response
}

/// With a stand-alone queue of its own, whose tasks are behind the request's. Another one is dropped with its tasks.
fn with_returned_tasks(adder: &Adder, random: &mut Random) -> Response {
    let (returned, lost) = (BackgroundTasks::new(), BackgroundTasks::new());
    for _ in 0..random.below(4) {
        adder.add_to(&returned, Kind::tame(random), 1);
    }
    if random.below(4) == 0 {
        let (task, _) = adder.task(Kind::Completes, 1);
        lost.add_task(task);
    }
    (returned, body(random)).into_response()
}

async fn wait_somehow(random: &mut Random) {
    match random.below(16) {
        0 => sleep(Duration::from_micros(random.below(1_000))).await,
        1..=3 => yield_now().await,
        _ => {}
    }
}

fn body(random: &mut Random) -> Response {
    let chunk = Ok::<_, Infallible>(Bytes::from_static(b"chunk"));
    match random.below(8) {
        0 => http::StatusCode::NO_CONTENT.into_response(),
        1 => Body::from_stream(stream::iter(vec![chunk; random.below(5) as usize])).into_response(),
        2 => Body::from_stream(stream::iter([chunk]).chain(stream::pending())).into_response(),
        3 => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => "hello".into_response(),
    }
}

/// Adds tasks to one request.
#[derive(Clone)]
pub(super) struct Adder {
    run: Arc<Run>,
    request: Arc<RequestBook>,
    /// `None` for tasks of no request.
    tasks: Option<BackgroundTasks>,
}

impl Adder {
    fn queue(&self) -> BackgroundTasks {
        self.tasks.clone().unwrap_or_default()
    }

    fn add_some(&self, random: &mut Random, phase: u64) {
        let count = match random.below(64) {
            0 => random.below(300),
            1..=8 => 0,
            _ => 1 + random.below(6),
        };
        // Most requests' tasks are alike: long runs of them are what is quick.
        let alike = (random.below(4) == 0).then_some(Kind::any(random, &self.run.rules));
        for _ in 0..count {
            let kind = alike.unwrap_or_else(|| Kind::any(random, &self.run.rules));
            match random.below(4) {
                0 => self.try_add(kind, phase),
                _ => self.add_to(&self.queue(), kind, phase),
            }
        }
    }

    /// At any time, and from any thread.
    fn add(&self, kind: Kind) {
        self.add_to(&self.queue(), kind, UNORDERED);
    }

    /// By a task of the same request.
    fn add_late(&self, by: Traits) {
        let is_alone = !by.is_blocking || !by.has_timeout;
        let phase = if is_alone { LATE } else { UNORDERED };
        self.add_to(&self.queue(), Kind::any_tame(), phase);
    }

    fn add_to(&self, tasks: &BackgroundTasks, kind: Kind, phase: u64) {
        let (task, number) = self.task(kind, phase);
        self.run.books.accept(number);
        tasks.add_task(task);
    }

    fn try_add(&self, kind: Kind, phase: u64) {
        let (task, number) = self.task(kind, phase);
        self.run.books.accept(number);
        match self.queue().try_add_task(task) {
            Ok(id) => self.run.remember(id),
            Err(refused) => {
                self.run.books.take_back(number);
                let _ = catch_unwind(AssertUnwindSafe(|| drop(refused)));
            }
        }
    }

    /// A task, and its number in the books.
    fn task(&self, kind: Kind, phase: u64) -> (Task, usize) {
        let traits = Traits {
            position: match phase {
                UNORDERED => 0,
                phase => self.request.position(phase),
            },
            ..kind.traits(&self.run.rules)
        };
        let token = self.run.books.token(&self.request, traits);
        let number = token.entry.number;
        let task = kind.task(token, self.clone());
        let is_named = self.run.rules.observed && number % 2 == 0;
        let task = match is_named {
            true => task.named(format!("task-{number}")),
            false => task,
        };
        (task, number)
    }
}

/// Of [`RequestBook::position`]: added by a task of the request.
const LATE: u64 = 2;
/// Added beside others.
const UNORDERED: u64 = 3;

/// What a task does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Completes,
    CompletesOnAThread,
    AsksForItsResponse,
    AsksOnAThread,
    Yields,
    Sleeps,
    SleepsOnAThread,
    IsWokenFromAForeignThread,
    Fails,
    FailsOnAThread,
    FailsWithAnErrorThatPanics,
    Panics,
    PanicsOnAThread,
    PanicsWhenDropped,
    TimesOut,
    TimesOutOnAThread,
    IsSkipped,
    RunsWithoutAResponse,
    ConditionPanics,
    AddsAnother,
    AddsAnotherOnAThread,
    AddsAnotherWhenDropped,
    NeverEnds,
}

const ON_A_THREAD: [Kind; 7] = [
    Kind::CompletesOnAThread,
    Kind::AsksOnAThread,
    Kind::SleepsOnAThread,
    Kind::FailsOnAThread,
    Kind::PanicsOnAThread,
    Kind::TimesOutOnAThread,
    Kind::AddsAnotherOnAThread,
];

const WILD: [Kind; 15] = [
    Kind::Fails,
    Kind::FailsOnAThread,
    Kind::FailsWithAnErrorThatPanics,
    Kind::Panics,
    Kind::PanicsOnAThread,
    Kind::PanicsWhenDropped,
    Kind::TimesOut,
    Kind::TimesOutOnAThread,
    Kind::IsSkipped,
    Kind::RunsWithoutAResponse,
    Kind::ConditionPanics,
    Kind::AddsAnother,
    Kind::AddsAnother,
    Kind::AddsAnotherOnAThread,
    Kind::AddsAnotherWhenDropped,
];

impl Kind {
    /// A quarter of them are not [`tame`](Self::tame).
    fn any(random: &mut Random, rules: &Rules) -> Self {
        match random.below(64) as usize {
            wild if wild < WILD.len() => WILD[wild],
            wild if wild == WILD.len() && rules.ends_all() => Self::NeverEnds,
            _ => Self::tame(random),
        }
    }

    /// One that completes.
    fn tame(random: &mut Random) -> Self {
        match random.below(32) {
            0 | 1 => Self::Yields,
            2 => Self::Sleeps,
            3 => Self::SleepsOnAThread,
            4..=7 => Self::CompletesOnAThread,
            8 => Self::AsksOnAThread,
            9 => Self::IsWokenFromAForeignThread,
            10..=12 => Self::AsksForItsResponse,
            _ => Self::Completes,
        }
    }

    /// The same, where there is no randomness at hand.
    fn any_tame() -> Self {
        static TURN: AtomicUsize = AtomicUsize::new(1);
        Self::tame(&mut Random::new(TURN.fetch_add(2, SeqCst) as u64 * 7_919))
    }

    fn traits(self, rules: &Rules) -> Traits {
        let has_own = matches!(self, Self::TimesOut | Self::TimesOutOnAThread);
        Traits {
            is_blocking: ON_A_THREAD.contains(&self),
            has_timeout: has_own || rules.task_timeout.is_some(),
            is_conditional: matches!(self, Self::IsSkipped | Self::ConditionPanics),
            position: 0,
        }
    }

    fn task(self, token: Token, adder: Adder) -> Task {
        let short = Duration::from_micros(500);
        match self {
            Self::Completes => Task::new(async move { token.begin().reach(COMPLETED) }),
            Self::AsksForItsResponse => asks_for_its_response(token),
            Self::Yields => Task::new(during(token, yield_now())),
            Self::Sleeps => Task::new(during(token, async move { sleep(short).await })),
            Self::NeverEnds => Task::new(during(token, pending())),
            Self::IsWokenFromAForeignThread => {
                let run = Arc::downgrade(&adder.run);
                Task::new(during(token, woken_from_a_foreign_thread(run)))
            }
            _ => self.task_on_a_thread(token, adder),
        }
    }

    fn task_on_a_thread(self, token: Token, adder: Adder) -> Task {
        match self {
            Self::AsksOnAThread => Task::blocking_with_context(move |cx| {
                let begun = token.begin();
                let _ = (cx.response().is_some(), cx.is_shutting_down());
                begun.reach(COMPLETED);
            }),
            Self::SleepsOnAThread => Task::blocking(move || {
                sleep_on_a_thread(&token, Duration::from_micros(200));
            }),
            Self::CompletesOnAThread => Task::blocking(move || token.begin().reach(COMPLETED)),
            _ => self.failing(token, adder),
        }
    }

    fn failing(self, token: Token, adder: Adder) -> Task {
        match self {
            Self::Fails => Task::new(async move { fail(&token, "on purpose") }),
            Self::FailsOnAThread => Task::blocking(move || fail(&token, "on purpose")),
            Self::FailsWithAnErrorThatPanics => {
                Task::new(async move { fail(&token, ErrorThatPanics) })
            }
            Self::Panics => Task::new(async move { panic(&token) }),
            Self::PanicsOnAThread => Task::blocking(move || panic(&token)),
            Self::PanicsWhenDropped => {
                let captured = PanicsWhenDropped(token);
                Task::new(async move { drop(captured.0.begin()) })
            }
            _ => self.with_settings(token, adder),
        }
    }

    fn with_settings(self, token: Token, adder: Adder) -> Task {
        let short = Duration::from_micros(500);
        match self {
            Self::TimesOut => Task::new(during(token, pending())).timeout(short),
            Self::TimesOutOnAThread => {
                Task::blocking(move || sleep_on_a_thread(&token, short)).timeout(short)
            }
            Self::IsSkipped => Task::new(during(token, ready(()))).run_if(|_| false),
            Self::RunsWithoutAResponse => Task::new(during(token, ready(()))).run_if(|_| true),
            Self::ConditionPanics => condition_panics(token),
            _ => self.adding(token, adder),
        }
    }

    fn adding(self, token: Token, adder: Adder) -> Task {
        match self {
            Self::AddsAnother => Task::new(async move {
                let begun = token.begin();
                adder.add_late(token.entry.traits);
                begun.reach(COMPLETED);
            }),
            Self::AddsAnotherOnAThread => Task::blocking(move || {
                let begun = token.begin();
                adder.add_late(token.entry.traits);
                begun.reach(COMPLETED);
            }),
            _ => {
                let captured = AddsWhenDropped(adder);
                Task::new(async move {
                    let _captured = captured;
                    token.begin().reach(COMPLETED);
                })
            }
        }
    }
}

/// Runs for as long as `future` does.
async fn during(token: Token, future: impl Future<Output = ()>) {
    let begun = token.begin();
    future.await;
    begun.reach(COMPLETED);
}

fn sleep_on_a_thread(token: &Token, time: Duration) {
    let begun = token.begin();
    thread::sleep(time);
    begun.reach(COMPLETED);
}

fn asks_for_its_response(token: Token) -> Task {
    Task::with_context(|cx| async move {
        let begun = token.begin();
        yield_now().await;
        let has_a_name = !cx.name().is_empty();
        begun.reach(if has_a_name { COMPLETED } else { NOTHING });
    })
}

async fn woken_from_a_foreign_thread(run: Weak<Run>) {
    let (wake, woken) = oneshot::channel();
    if let Some(run) = run.upgrade() {
        run.on_a_foreign_thread(move || wake.send(()).unwrap_or(()));
    }
    let _ = woken.await;
}

fn fail<E>(token: &Token, error: E) -> Result<(), E> {
    token.begin().reach(FAILED);
    Err(error)
}

fn panic(token: &Token) {
    token.begin().reach(PANICKED);
    panic!("on purpose: a task");
}

fn condition_panics(token: Token) -> Task {
    let token = Arc::new(token);
    let asked = token.clone();
    Task::new(async move { token.begin().reach(COMPLETED) }).run_if(move |_| {
        asked.condition_fails();
        panic!("on purpose: a condition");
    })
}

struct PanicsWhenDropped(Token);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        self.0.reach(PANICKED);
        panic!("on purpose: a destructor");
    }
}

struct AddsWhenDropped(Adder);

impl Drop for AddsWhenDropped {
    fn drop(&mut self) {
        self.0.add(Kind::any_tame());
    }
}

#[derive(Debug)]
struct ErrorThatPanics;

impl fmt::Display for ErrorThatPanics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("on purpose")
    }
}

impl Error for ErrorThatPanics {}

impl Drop for ErrorThatPanics {
    fn drop(&mut self) {
        panic!("on purpose: an error's destructor");
    }
}
