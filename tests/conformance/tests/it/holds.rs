//! Tasks that wait for a commit, in random interleavings of everything that can happen to them: added to the request's queue or to
//! a hold, held within a hold, released or dropped by handlers that commit, give up, panic, time out or lose their clients, by tasks,
//! and by others that have the handles, before and after the response, and while the runner shuts down. A model says what must
//! become of each task; afterwards the books must balance. On one thread, in virtual time, the order is known as a whole; on several
//! threads, that of each party.
//!
//! `HOLDS_SEED=7 HOLDS_CASES=1 cargo test --package conformance holds -- --nocapture` plays the case of that seed, and
//! `HOLDS_CASES=1000000` more than the 100,000 on one thread and the 20,000 on several. Those take 25 seconds of processor time in a
//! debug build. The seed governs all that happens on one thread; on several it governs what each party does, and not when.

mod actor;
mod checks;
mod model;
mod rules;
mod tally;
mod visit;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinSet, yield_now},
    time::advance,
};
use tower_background_tasks::ShutdownReport;

use self::{
    actor::{Actor, Case},
    checks::check,
    rules::Rules,
    tally::{Event, Tally},
    visit::Visit,
};
use crate::{
    chaos::number_from_env, load::Random, matrix::silence_panics_on_purpose, support::soon,
};

/// Longer than any case, in virtual time.
const LONG: Duration = Duration::from_secs(3_600);
/// Cases that fail before no more are played.
const MOST_FAILED: usize = 3;

fn random_of(seed: u64) -> Random {
    let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    random.next();
    random
}

/// A case on one thread: what happens next is drawn, and so all is the same for the same seed.
struct Play {
    case: Arc<Case>,
    random: Random,
    visits: Vec<Visit>,
    late: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    shutdown: Option<Pin<Box<dyn Future<Output = ShutdownReport>>>>,
    report: Option<ShutdownReport>,
}

impl Play {
    fn new(seed: u64, tally: &Arc<Tally>) -> Self {
        let mut random = random_of(seed);
        let case = Case::new(Rules::random(&mut random, false), tally);
        let visits = (0..case.rules.requests).map(|_| Visit::random(&case, &mut random));
        let visits = visits.collect();
        let late = (0..case.rules.late).map(|_| {
            let late = late(Actor::late(&case, random.next()));
            Some(Box::pin(late) as Pin<Box<dyn Future<Output = ()>>>)
        });
        let late = late.collect();
        Self {
            case,
            random,
            visits,
            late,
            shutdown: None,
            report: None,
        }
    }

    async fn play(mut self) -> Vec<String> {
        for _ in 0..8 + self.random.below(40) {
            self.step().await;
        }
        self.finish().await;
        soon_in_virtual_time(self.case.runner.idle()).await;
        self.case
            .tally
            .add(self.case.runner.stats(), self.case.model.holds());
        check(&self.case, self.report.as_ref())
    }

    async fn step(&mut self) {
        match self.random.below(16) {
            0..=5 => self.visit().await,
            6..=8 => self.act_late().await,
            9..=11 => self.turns().await,
            12 => {
                if self.random.below(8) == 0 {
                    let visit = self.random.below(self.case.rules.requests) as usize;
                    self.visits[visit].leave();
                }
            }
            13 => self.pass_time().await,
            14 => end_a_stashed_hold(&self.case, &mut self.random, 0),
            _ => self.operate().await,
        }
    }

    async fn visit(&mut self) {
        let visit = self.random.below(self.case.rules.requests) as usize;
        let visit = &mut self.visits[visit];
        visit.poll_once().await;
    }

    async fn act_late(&mut self) {
        let picked = self.random.below(self.case.rules.late.max(1)) as usize;
        if let Some(Some(late)) = self.late.get_mut(picked) {
            let polled = poll_fn(|cx| Poll::Ready(late.as_mut().poll(cx))).await;
            if polled.is_ready() {
                self.late[picked] = None;
            }
        }
    }

    /// Tasks get their turn.
    async fn turns(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            yield_now().await;
        }
    }

    async fn pass_time(&mut self) {
        advance(Duration::from_millis(1 + self.random.below(10))).await;
    }

    /// Cancels a task, or begins a shutdown.
    async fn operate(&mut self) {
        if self.random.below(3) > 0 {
            return cancel_one(&self.case, &mut self.random);
        }
        if self.case.rules.shuts_down && self.report.is_none() {
            let grace = Duration::from_millis(self.random.below(10));
            let case = self.case.clone();
            let shutdown = self.shutdown.get_or_insert_with(|| {
                case.tally.count(Event::Shutdown);
                Box::pin(shut_down(case, grace))
            });
            let polled = poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx))).await;
            if let Poll::Ready(report) = polled {
                (self.report, self.shutdown) = (Some(report), None);
            }
        }
    }

    /// Requests and others come to their ends, in some order; then what they have left behind.
    async fn finish(&mut self) {
        for _ in 0..self.random.below(30) {
            if self.visits.iter().all(Visit::is_over) {
                break;
            }
            self.visit().await;
            self.act_late().await;
            match self.random.below(8) {
                0 | 1 => self.turns().await,
                2 => self.pass_time().await,
                _ => {}
            }
        }
        self.late.clear();
        if self.random.below(2) == 0 {
            self.end_shutdown().await;
        }
        self.visits.iter_mut().for_each(Visit::leave);
        end_what_is_left(&self.case, &mut self.random, 0);
        self.end_shutdown().await;
    }

    async fn end_shutdown(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            self.report = Some(soon_in_virtual_time(shutdown).await);
        }
    }
}

async fn late(mut actor: Actor) {
    let steps = 2 + actor.random.below(10);
    let _ = actor.play(steps).await;
}

async fn shut_down(case: Arc<Case>, grace: Duration) -> ShutdownReport {
    let report = case.runner.shutdown(grace).await;
    case.model.shut_down();
    report
}

async fn soon_in_virtual_time<F: Future>(future: F) -> F::Output {
    let ended = tokio::time::timeout(LONG, future).await;
    ended.expect("it ends")
}

fn end_a_stashed_hold(case: &Case, random: &mut Random, lane: usize) {
    let hold = case.stash.lock().unwrap().pop();
    match hold {
        Some(hold) if random.below(3) > 0 => hold.release(lane),
        hold => drop(hold),
    }
}

fn end_what_is_left(case: &Case, random: &mut Random, lane: usize) {
    while !case.stash.lock().unwrap().is_empty() {
        end_a_stashed_hold(case, random, lane);
    }
    let kept = std::mem::take(&mut *case.kept.lock().unwrap());
    drop(kept);
}

fn cancel_one(case: &Case, random: &mut Random) {
    if let Some((number, id)) = case.model.id_of(random.next()) {
        if case.runner.cancel(id) {
            case.model.cancelled(number);
        }
    }
}

/// Waits until the last of what tasks captured is gone, where a thread is just about to drop it.
async fn settle(case: &Case) {
    let begun = Instant::now();
    while case.model.alive() > 0 && begun.elapsed() < Duration::from_secs(5) {
        yield_now().await;
    }
}

/// A case on several threads, which do as they come.
async fn play_on_threads(seed: u64, tally: Arc<Tally>) -> Vec<String> {
    let mut random = random_of(seed);
    let case = Case::new(Rules::random(&mut random, true), &tally);
    let mut parties = JoinSet::new();
    for _ in 0..case.rules.requests {
        let (mut visit, polls) = (Visit::random(&case, &mut random), random.below(40));
        parties.spawn(async move {
            for _ in 0..polls {
                visit.poll_once().await;
                if visit.is_over() {
                    return;
                }
                yield_now().await;
            }
            visit.leave();
        });
    }
    for _ in 0..case.rules.late {
        parties.spawn(late(Actor::late(&case, random.next())));
    }
    let (party, mut its_random) = (case.clone(), Random::new(random.next()));
    parties.spawn(async move {
        for _ in 0..its_random.below(8) {
            end_a_stashed_hold(&party, &mut its_random, usize::MAX);
            cancel_one(&party, &mut its_random);
            yield_now().await;
        }
    });
    let shutdown = case.rules.shuts_down.then(|| {
        let (case, turns) = (case.clone(), random.below(20));
        // Without a grace period it contends with releases.
        let grace = Duration::from_micros(random.below(2) * random.below(2_000));
        tokio::spawn(async move {
            for _ in 0..turns {
                yield_now().await;
            }
            case.tally.count(Event::Shutdown);
            shut_down(case, grace).await
        })
    });
    while let Some(party) = soon(parties.join_next()).await {
        party.expect("it does not panic");
    }
    end_what_is_left(&case, &mut random, usize::MAX - 1);
    let report = match shutdown {
        Some(shutdown) => Some(soon(shutdown).await.expect("it does not panic")),
        None => None,
    };
    // A task that runs may have left holds of its own.
    soon(case.runner.idle()).await;
    settle(&case).await;
    let wrong = check(&case, report.as_ref());
    case.tally.add(case.runner.stats(), case.model.holds());
    wrong
}

/// The cases that a test plays, one seed after another.
struct Cases {
    begun: Instant,
    next: AtomicU64,
    end: u64,
    tally: Arc<Tally>,
    failed: Mutex<Vec<u64>>,
}

impl Cases {
    fn new(default: u64) -> Arc<Self> {
        silence_panics_on_purpose();
        let first = number_from_env("HOLDS_SEED", 1);
        Arc::new(Self {
            begun: Instant::now(),
            next: AtomicU64::new(first),
            end: first + number_from_env("HOLDS_CASES", default),
            tally: Arc::default(),
            failed: Mutex::default(),
        })
    }

    fn next(&self) -> Option<u64> {
        let seed = self.next.fetch_add(1, Relaxed);
        let goes_on = seed < self.end && self.failed.lock().unwrap().len() < MOST_FAILED;
        goes_on.then_some(seed)
    }

    fn note(&self, seed: u64, is_threaded: bool, wrong: &[String]) {
        if wrong.is_empty() {
            return;
        }
        let (cases, wrong) = (self.tally.cases(), wrong.join("\n  "));
        let rules = Rules::random(&mut random_of(seed), is_threaded);
        eprintln!("holds: seed {seed}, after {cases} cases: {rules:?}\n  {wrong}");
        self.failed.lock().unwrap().push(seed);
    }

    /// Plays cases on this thread.
    fn play(&self) {
        let mut runtime = in_virtual_time();
        while let Some(seed) = self.next() {
            let played = catch_unwind(AssertUnwindSafe(|| {
                runtime.block_on(Play::new(seed, &self.tally).play())
            }));
            let wrong = played.unwrap_or_else(|_| {
                runtime = in_virtual_time();
                vec!["a panic".into()]
            });
            self.note(seed, false, &wrong);
        }
    }

    /// Plays cases on the threads of this runtime.
    async fn play_on_threads(&self) {
        while let Some(seed) = self.next() {
            let played = tokio::spawn(play_on_threads(seed, self.tally.clone())).await;
            let wrong = played.unwrap_or_else(|panic| vec![panic.to_string()]);
            self.note(seed, true, &wrong);
        }
    }

    fn conclude(&self, name: &str, without: &[Event]) {
        let (begun, tally) = (self.begun.elapsed(), &self.tally);
        println!("holds {name}: {begun:.1?}, {tally}");
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "seeds that fail: {failed:?}");
        let is_long = tally.cases() >= 10_000;
        assert!(
            !is_long || tally.has_all_but(without),
            "not all was reached"
        );
    }
}

fn in_virtual_time() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

#[test]
fn held_tasks_run_once_if_they_are_released_and_never_else() {
    let cases = Cases::new(100_000);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| cases.play());
        }
    });
    cases.conclude("on one thread", &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_tasks_run_once_or_never_whatever_threads_do() {
    let cases = Cases::new(20_000);
    join_all((0..4).map(|_| cases.play_on_threads())).await;
    cases.conclude("on several threads", &[Event::TimedOut]);
}
