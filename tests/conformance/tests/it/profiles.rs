//! Long runs of random requests without sockets, one for each way in which a runner can be set: the quick ways that limits and
//! observers switch off are reached too. After each run its books must balance, whichever way it ended.
//!
//! `PROFILE_TASKS=10000000 cargo test --package conformance profiles -- --nocapture` plays more of them, and
//! `PROFILE_SEED=7 cargo test --package conformance profiles::plain -- --nocapture` the one of that seed. A run
//! that takes longer than `PROFILE_DEADLINE` seconds, 60 by default, hangs.

mod books;
mod requests;
mod rules;

use std::{
    env, fmt,
    future::pending,
    panic,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::Ordering::SeqCst,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};
use tower_background_tasks::{Runner, ShutdownReport, Stats, TaskInfo, TaskReport};

use self::{
    books::{Books, Final},
    requests::{Client, Held, Run},
    rules::{Ending, Profile, Rules},
};
use crate::{chaos::number_from_env, load::Random, matrix::silence_panics_on_purpose};

/// What is only a matter of threads that go on comes to its end in this time.
const SETTLES: Duration = Duration::from_secs(10);

/// One of the runtimes of a run, on a thread of its own.
struct Host {
    handle: Handle,
    /// Dropped, it ends the runtime.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    held: Receiver<Vec<Held>>,
}

impl Host {
    /// With clients that begin at once.
    fn start(
        workers: usize,
        run: &Arc<Run>,
        clients: Vec<Client>,
        in_the_background: bool,
    ) -> Self {
        let runtime = runtime(workers, run.rules.blocking_threads);
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (send, held) = channel();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = play_all(clients, send) => {}
                    _ = stopped => {}
                }
            });
            match in_the_background {
                true => runtime.shutdown_background(),
                false => drop(runtime),
            }
        });
        Self {
            handle,
            stop,
            thread,
            held,
        }
    }

    fn stop(self) {
        drop(self.stop);
        self.thread.join().expect("a runtime ends");
    }
}

/// As tasks of this runtime, which stays there when they have all done, and sent what they hold.
async fn play_all(clients: Vec<Client>, send: Sender<Vec<Held>>) {
    let clients = clients
        .into_iter()
        .map(|client| tokio::spawn(client.play()));
    let clients: Vec<_> = clients.collect();
    let mut held = Vec::new();
    for client in clients {
        held.extend(client.await.expect("a client does not panic"));
    }
    let _ = send.send(held);
    pending().await
}

fn runtime(workers: usize, blocking_threads: usize) -> Runtime {
    let mut builder = match workers {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(workers.max(1))
        .max_blocking_threads(blocking_threads)
        .enable_time()
        .build()
        .expect("a runtime")
}

/// Waits on this thread, which is of no runtime that a request is on.
fn wait_for<F: Future>(future: F) -> F::Output {
    runtime(0, 1).block_on(future)
}

/// A run that is under way.
struct Session {
    run: Arc<Run>,
    /// `None` once the last handle is dropped.
    runner: Option<Runner>,
    random: Random,
    hosts: Vec<Host>,
    held: Vec<Held>,
    /// By runtime: it was dropped in the middle, with the tasks of its requests.
    dropped: Vec<bool>,
    report: Option<ShutdownReport>,
    /// The observer holds the other one, for as long as the runner is there.
    observer: Arc<()>,
    /// The runner's, where it has one.
    own: Option<Runtime>,
    progress: Arc<Progress>,
}

/// What a run is doing, for when it takes too long.
#[derive(Default)]
struct Progress {
    step: Mutex<&'static str>,
    books: OnceLock<Arc<Books>>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step.lock().unwrap())?;
        let books = self.books.get();
        books.map_or(Ok(()), |books| write!(f, ": {books}"))
    }
}

impl Session {
    fn new(rules: &Rules, seed: u64, progress: Arc<Progress>) -> Self {
        let (run, observer) = (Run::new(rules), Arc::new(()));
        let own = rules.own_runtime.then(|| runtime(1, 4));
        let _ = progress.books.set(run.books.clone());
        Self {
            runner: Some(runner(&run, &observer, own.as_ref())),
            run,
            random: Random::new(seed.wrapping_add(0x5EED)),
            hosts: Vec::new(),
            held: Vec::new(),
            dropped: Vec::new(),
            report: None,
            observer,
            own,
            progress,
        }
    }

    fn step(&self, step: &'static str) {
        *self.progress.step.lock().unwrap() = step;
    }

    fn runner(&self) -> &Runner {
        self.runner.as_ref().expect("it is not dropped yet")
    }

    fn play(&mut self) {
        let rules = self.run.rules.clone();
        let (last, before) = rules.runtimes.split_last().expect("a runtime");
        for group in before {
            self.start(group);
            self.end_idle();
            self.stop_hosts();
        }
        self.start(last);
        match rules.ending {
            Ending::Idle => self.end_idle(),
            Ending::Shutdown => self.end_by_shutdown(),
            Ending::RuntimeDropped => self.end_by_dropping(rules.dropped),
            Ending::RunnerDropped => self.end_by_dropping_the_runner(),
        }
        self.stop_hosts();
    }

    fn start(&mut self, group: &[usize]) {
        self.step("clients");
        for &workers in group {
            let runtime = self.dropped.len();
            self.dropped.push(false);
            let clients = (0..self.run.rules.clients).map(|_| self.client(runtime));
            let clients = clients.collect();
            let in_the_background = self.random.below(2) == 0;
            let host = Host::start(workers, &self.run, clients, in_the_background);
            self.hosts.push(host);
        }
    }

    fn client(&mut self, runtime: usize) -> Client {
        Client {
            run: self.run.clone(),
            runner: self.runner().clone(),
            random: Random::new(self.random.next()),
            runtime,
            held: Vec::new(),
        }
    }

    /// Waits until all clients have done, and takes over what they hold.
    fn collect(&mut self) {
        for host in &self.hosts {
            self.held.extend(host.held.recv().expect("clients play"));
        }
    }

    /// Waits until so many in a hundred of the requests have been sent.
    fn wait_until_sent(&mut self) {
        let part = self.random.below(110) as usize;
        let rules = &self.run.rules;
        let group = rules.runtimes.last().map_or(0, Vec::len);
        let before = self.dropped.len() - group;
        let of_one = rules.clients * rules.requests;
        let wanted = of_one * before + of_one * group * part.min(100) / 100;
        while self.run.requests.load(SeqCst) < wanted {
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Lets go of what clients held.
    fn finish_held(&mut self) {
        self.step("finishing what clients held");
        let runtimes: Vec<_> = self.hosts.iter().map(|host| host.handle.clone()).collect();
        for held in self.held.drain(..) {
            held.finish(&self.run, &mut self.random, &runtimes);
        }
        self.run.flush();
        if !settle(|| self.run.has_no_readers()) {
            self.run.books.violation("a body is still read".into());
        }
    }

    fn wait_until_idle(&self) {
        self.step("waiting until the runner is idle");
        wait_for(self.runner().idle());
    }

    fn end_idle(&mut self) {
        self.collect();
        self.finish_held();
        self.wait_until_idle();
        let books = &self.run.books;
        books.check_told(self.runner().stats(), "idle has returned");
        books.check_gone(true, "idle has returned");
    }

    fn end_by_shutdown(&mut self) {
        self.wait_until_sent();
        self.step("shutting down");
        let grace = Duration::from_micros(self.random.below(5_000));
        let runner = self.runner();
        let (report, other) =
            wait_for(async { tokio::join!(runner.shutdown(grace), runner.shutdown(2 * grace)) });
        self.same_report(&report, &other);
        self.report = Some(report);
        self.step("clients after the shutdown");
        self.collect();
        self.finish_held();
        self.wait_until_idle();
    }

    fn same_report(&self, one: &ShutdownReport, other: &ShutdownReport) {
        let ids = |report: &ShutdownReport| -> Vec<_> {
            report.unfinished().iter().map(TaskInfo::id).collect()
        };
        if ids(one) != ids(other) {
            let text = "two shutdowns at once gave two reports";
            self.run.books.violation(text.into());
        }
    }

    /// The first ones are dropped; what clients do on the others goes on.
    fn end_by_dropping(&mut self, count: usize) {
        self.wait_until_sent();
        self.step("dropping a runtime");
        let first = self.dropped.len() - self.hosts.len();
        for (index, host) in self.hosts.drain(..count).enumerate() {
            self.dropped[first + index] = self.own.is_none();
            self.held.extend(host.held.try_iter().flatten());
            host.stop();
        }
        self.step("clients on other runtimes");
        self.collect();
        self.finish_held();
        self.wait_until_idle();
    }

    /// Tasks outlive it.
    fn end_by_dropping_the_runner(&mut self) {
        self.collect();
        self.run.flush();
        self.step("dropping the runner");
        self.runner = None;
        self.finish_held();
        self.step("tasks without a handle of their runner");
        let (books, observed) = (&self.run.books, self.run.rules.observed);
        settle(|| {
            let all_told = !observed || books.told() >= books.accepted();
            all_told && books.alive(false).is_empty()
        });
    }

    fn stop_hosts(&mut self) {
        self.step("stopping the runtimes");
        for host in self.hosts.drain(..) {
            host.stop();
        }
    }

    /// Checks the books when nothing moves any more.
    fn check(&mut self) -> Outcome {
        self.step("waiting until no task is alive");
        self.run.flush();
        let books = self.run.books.clone();
        let balanced = |stats: Stats| stats.awaiting_response + stats.pending + stats.running == 0;
        let runner = self.runner.clone();
        settle(|| {
            let is_balanced = runner
                .as_ref()
                .is_none_or(|runner| balanced(runner.stats()));
            is_balanced && books.alive(false).is_empty()
        });
        let stats = runner.as_ref().map(Runner::stats);
        books.check(&Final {
            stats,
            report: self.report.as_ref(),
            dropped: &self.dropped,
        });
        self.check_nothing_is_left(runner);
        Outcome::new(&self.run, stats)
    }

    fn check_nothing_is_left(&mut self, runner: Option<Runner>) {
        let books = &self.run.books;
        books.check_gone(false, "at the end");
        // The row of a thread that has outlived its task's end goes just after what the task captured.
        let listed = || runner.as_ref().map_or(Vec::new(), Runner::tasks);
        if !settle(|| listed().is_empty()) {
            books.violation(format!("tasks are listed: {:?}", listed()));
        }
        drop((runner, self.runner.take(), self.own.take()));
        if !settle(|| Arc::strong_count(&self.observer) == 1) {
            books.violation(format!(
                "{} tasks are gone, and the runner is alive",
                books.accepted()
            ));
        }
    }
}

/// True as soon as this is; false after a while.
fn settle(is_so: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > SETTLES {
            return false;
        }
        thread::sleep(Duration::from_micros(200));
    }
    true
}

fn runner(run: &Arc<Run>, observer: &Arc<()>, own: Option<&Runtime>) -> Runner {
    let mut builder = run.rules.builder();
    if let Some(own) = own {
        builder = builder.runtime(own.handle().clone());
    }
    if !run.rules.observed {
        return builder.build();
    }
    let (books, observer) = (run.books.clone(), observer.clone());
    let observe = move |report: &TaskReport<'_>| {
        books.tell(report);
        if report.id().as_u64() % 61 == 0 && Arc::strong_count(&observer) > 0 {
            panic!("on purpose: an observer");
        }
    };
    builder.on_task_end(observe).build()
}

/// What runs of one profile came to.
#[derive(Clone, Debug, Default)]
struct Outcome {
    runs: u64,
    tasks: u64,
    requests: u64,
    cancels: u64,
    stats: [u64; 7],
    endings: [u64; 4],
    violations: Vec<String>,
}

impl Outcome {
    fn new(run: &Run, stats: Option<Stats>) -> Self {
        let mut endings = [0; 4];
        endings[run.rules.ending as usize] = 1;
        Self {
            runs: 1,
            tasks: run.books.accepted(),
            requests: run.requests.load(SeqCst) as u64,
            cancels: run.books.cancels(),
            stats: stats.map_or([0; 7], ends),
            endings,
            violations: run.books.violations(),
        }
    }

    /// Every way to end a run, and every end that this profile's tasks can have.
    fn has_everything(&self) -> bool {
        let counts = self.stats.iter().chain(&self.endings);
        self.cancels > 0 && counts.min() > Some(&0)
    }

    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.tasks += other.tasks;
        self.requests += other.requests;
        self.cancels += other.cancels;
        let sums = self.stats.iter_mut().zip(other.stats);
        let endings = self.endings.iter_mut().zip(other.endings);
        sums.chain(endings).for_each(|(sum, one)| *sum += one);
    }
}

fn ends(stats: Stats) -> [u64; 7] {
    [
        stats.completed,
        stats.failed,
        stats.panicked,
        stats.timed_out,
        stats.skipped,
        stats.rejected,
        stats.aborted,
    ]
}

const ENDS: [&str; 7] = [
    "completed",
    "failed",
    "panicked",
    "timed out",
    "skipped",
    "rejected",
    "aborted",
];

const ENDINGS: [&str; 4] = [
    "ended idle",
    "by a shutdown",
    "without a runtime",
    "without the runner",
];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs", self.runs)?;
        for (count, ending) in self.endings.iter().zip(ENDINGS) {
            write!(f, ", {count} {ending}")?;
        }
        write!(f, "; {} requests; {} tasks", self.requests, self.tasks)?;
        for (count, end) in self.stats.iter().zip(ENDS) {
            write!(f, ", {count} {end}")?;
        }
        write!(f, "; {} cancelled", self.cancels)
    }
}

/// Plays the run of one seed on a thread of its own, so that one that hangs is told of.
fn play(profile: Profile, seed: u64) -> Outcome {
    let progress = Arc::<Progress>::default();
    let (done, is_done) = channel();
    let here = progress.clone();
    let thread = thread::spawn(move || {
        let mut session = Session::new(&Rules::new(profile, seed), seed, here);
        session.play();
        let _ = done.send(session.check());
    });
    // A run takes less than two seconds.
    let deadline = Duration::from_secs(number_from_env("PROFILE_DEADLINE", 60));
    match is_done.recv_timeout(deadline) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Disconnected) => {
            let panicked = thread.join().expect_err("it sent nothing");
            eprintln!("profile {profile:?}, seed {seed}: panicked");
            panic::resume_unwind(panicked)
        }
        Err(RecvTimeoutError::Timeout) => {
            let rules = Rules::new(profile, seed);
            panic!("profile {profile:?}, seed {seed}: hangs: {progress}; {rules:?}")
        }
    }
}

/// Plays one run after another, until so many of a thousand parts of all tasks have been added.
fn play_share(profile: Profile, share: u64) {
    silence_panics_on_purpose();
    let begun = Instant::now();
    let only = env::var("PROFILE_SEED").is_ok();
    let wanted = number_from_env("PROFILE_TASKS", 1_000_000) * share / 1_000;
    let mut seed = number_from_env("PROFILE_SEED", 1);
    let (mut all, mut failed) = (Outcome::default(), 0);
    while all.runs == 0 || !only && all.tasks < wanted && failed < 3 {
        let outcome = play_and_tell(profile, seed);
        failed += usize::from(!outcome.violations.is_empty());
        all.add(&outcome);
        seed += 1;
    }
    println!("profile {profile:?}: {:.1?}, {all}", begun.elapsed());
    assert_eq!(failed, 0, "runs of {profile:?} do not balance");
    let is_long = !only && wanted >= 20_000;
    assert!(!is_long || all.has_everything(), "not all was reached");
}

fn play_and_tell(profile: Profile, seed: u64) -> Outcome {
    let outcome = play(profile, seed);
    if !outcome.violations.is_empty() {
        let rules = Rules::new(profile, seed);
        let violations = outcome.violations.join("\n  ");
        eprintln!("profile {profile:?}, seed {seed}, {rules:?}\n  {violations}");
    }
    outcome
}

#[test]
fn plain_books_balance() {
    play_share(Profile::Plain, 250);
}

#[test]
fn limited_books_balance() {
    play_share(Profile::Limits, 120);
}

#[test]
fn observed_books_balance() {
    play_share(Profile::Observer, 120);
}

#[test]
fn concurrent_books_balance() {
    play_share(Profile::Concurrent, 120);
}

#[test]
fn books_with_timeouts_balance() {
    play_share(Profile::Timeouts, 100);
}

#[test]
fn books_balance_where_failures_stop_requests() {
    play_share(Profile::Stop, 80);
}

#[test]
fn one_runner_serves_several_runtimes() {
    play_share(Profile::Runtimes, 110);
}

#[test]
fn books_balance_on_zero_to_eight_workers() {
    play_share(Profile::Workers, 100);
}
