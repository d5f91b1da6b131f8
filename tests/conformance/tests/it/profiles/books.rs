//! The books of one run: each task that was made, what its body did, and what the runner told of it.
//!
//! A task captures a [`Token`], which holds its [`Entry`]; so an entry that only the books hold is that of a task that is gone.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use tower_background_tasks::{ShutdownReport, Stats, TaskId, TaskReport};

use super::rules::Rules;

/// How many violations are kept; the first few tell enough.
const KEPT_VIOLATIONS: usize = 10;

pub(super) const NOTHING: u8 = 0;
pub(super) const COMPLETED: u8 = 1;
pub(super) const FAILED: u8 = 2;
pub(super) const PANICKED: u8 = 3;

/// One request: its tasks run one after another, unless the profile says otherwise.
#[derive(Default)]
pub(super) struct RequestBook {
    /// Which of the run's runtimes it came in on.
    runtime: usize,
    /// Its tasks are side by side: it is none, or the order is concurrent.
    is_concurrent: bool,
    /// There was a response.
    pub(super) responded: AtomicBool,
    /// One of its tasks runs.
    busy: AtomicBool,
    /// The position of the last one that began, and one.
    last: AtomicU64,
    /// A task of it has failed.
    failed: AtomicBool,
    positions: AtomicU64,
}

impl RequestBook {
    pub(super) fn new(runtime: usize, is_concurrent: bool) -> Self {
        Self {
            runtime,
            is_concurrent,
            ..Self::default()
        }
    }

    /// The next place in the order of what is added in this phase of the request: the handler's own tasks are first,
    /// then those returned with the response, then what running tasks add.
    pub(super) fn position(&self, phase: u64) -> u64 {
        (phase << 32) + self.positions.fetch_add(1, SeqCst) + 1
    }

    fn fail(&self) {
        self.failed.store(true, SeqCst);
    }
}

/// One task.
pub(super) struct Entry {
    pub(super) request: Arc<RequestBook>,
    pub(super) number: usize,
    pub(super) traits: Traits,
    /// It was given to a runner, and must be counted.
    accepted: AtomicBool,
    begun: AtomicU32,
    reached: AtomicU8,
    told: Mutex<Option<&'static str>>,
}

/// What the books have to know of a task.
#[derive(Clone, Copy, Default)]
pub(super) struct Traits {
    pub(super) is_blocking: bool,
    /// It has a timeout, its own or the runner's.
    pub(super) has_timeout: bool,
    /// It has a condition that may not hold.
    pub(super) is_conditional: bool,
    /// Its place in its request's order, or 0.
    pub(super) position: u64,
}

impl Traits {
    /// After its timeout its thread goes on, beside the request's next task.
    fn may_outlive_its_end(self) -> bool {
        self.is_blocking && self.has_timeout
    }
}

pub(super) struct Books {
    rules: Rules,
    entries: Mutex<Vec<Arc<Entry>>>,
    accepted: AtomicU64,
    /// What the observer was told: how often, and the last end.
    told: Mutex<HashMap<TaskId, (u32, &'static str)>>,
    cancelled: Mutex<HashSet<TaskId>>,
    running: AtomicUsize,
    running_blocking: AtomicUsize,
    begun_after_failure: AtomicU64,
    violations: Mutex<Vec<String>>,
}

/// What a task captures.
pub(super) struct Token {
    pub(super) books: Arc<Books>,
    pub(super) entry: Arc<Entry>,
}

/// A body that runs.
pub(super) struct Begun<'a> {
    token: &'a Token,
    exclusive: bool,
}

/// What is known when all is over.
pub(super) struct Final<'a> {
    pub(super) stats: Option<Stats>,
    pub(super) report: Option<&'a ShutdownReport>,
    /// By runtime: it was dropped in the middle.
    pub(super) dropped: &'a [bool],
}

impl Final<'_> {
    fn lost_a_runtime(&self) -> bool {
        self.dropped.contains(&true)
    }
}

impl Books {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: Mutex::default(),
            accepted: AtomicU64::new(0),
            told: Mutex::default(),
            cancelled: Mutex::default(),
            running: AtomicUsize::new(0),
            running_blocking: AtomicUsize::new(0),
            begun_after_failure: AtomicU64::new(0),
            violations: Mutex::default(),
        }
    }

    pub(super) fn token(self: &Arc<Self>, request: &Arc<RequestBook>, traits: Traits) -> Token {
        let mut entries = self.entries.lock().unwrap();
        let entry = Arc::new(Entry {
            request: request.clone(),
            number: entries.len(),
            traits,
            accepted: AtomicBool::new(false),
            begun: AtomicU32::new(0),
            reached: AtomicU8::new(NOTHING),
            told: Mutex::new(None),
        });
        entries.push(entry.clone());
        drop(entries);
        let books = self.clone();
        Token { books, entry }
    }

    /// The task of this number goes to a runner, which must count it from now on.
    pub(super) fn accept(&self, number: usize) {
        self.accepted.fetch_add(1, SeqCst);
        let entries = self.entries.lock().unwrap();
        entries[number].accepted.store(true, SeqCst);
    }

    /// The runner gave it back.
    pub(super) fn take_back(&self, number: usize) {
        self.accepted.fetch_sub(1, SeqCst);
        let entries = self.entries.lock().unwrap();
        entries[number].accepted.store(false, SeqCst);
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    pub(super) fn cancelled(&self, id: TaskId) {
        if !self.cancelled.lock().unwrap().insert(id) {
            self.violation(format!("task {id} was cancelled twice"));
        }
    }

    pub(super) fn cancels(&self) -> u64 {
        self.cancelled.lock().unwrap().len() as u64
    }

    pub(super) fn violation(&self, text: String) {
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < KEPT_VIOLATIONS {
            violations.push(text);
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    fn expect(&self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.violation(text());
        }
    }

    /// What the observer hears.
    pub(super) fn tell(&self, report: &TaskReport<'_>) {
        let end = report.end().as_str();
        let mut told = self.told.lock().unwrap();
        let (times, last) = told.entry(report.id()).or_default();
        (*times, *last) = (*times + 1, end);
        drop(told);
        if let Some(entry) = self.named(report.name()) {
            *entry.told.lock().unwrap() = Some(end);
        }
    }

    fn named(&self, name: &str) -> Option<Arc<Entry>> {
        let number: usize = name.strip_prefix("task-")?.parse().ok()?;
        self.entries.lock().unwrap().get(number).cloned()
    }

    pub(super) fn told(&self) -> u64 {
        let told = self.told.lock().unwrap();
        told.values().map(|(times, _)| u64::from(*times)).sum()
    }
}

impl Token {
    /// The body begins.
    pub(super) fn begin(&self) -> Begun<'_> {
        let (books, entry) = (&self.books, &self.entry);
        let before = entry.begun.fetch_add(1, SeqCst);
        books.expect(before == 0, || format!("task {} ran twice", entry.number));
        let exclusive = !entry.request.is_concurrent && !entry.traits.may_outlive_its_end();
        self.check_limits();
        if exclusive {
            self.check_order();
        }
        Begun {
            token: self,
            exclusive,
        }
    }

    fn check_order(&self) {
        let Entry {
            request,
            number,
            traits,
            ..
        } = &*self.entry;
        let busy = request.busy.swap(true, SeqCst);
        let books = &self.books;
        books.expect(!busy, || format!("task {number} runs beside another"));
        if traits.position > 0 {
            let last = request.last.swap(traits.position, SeqCst);
            let in_order = last < traits.position;
            books.expect(in_order, || format!("task {number} is out of order"));
        }
        if books.rules.stops && request.failed.swap(false, SeqCst) {
            books.begun_after_failure.fetch_add(1, SeqCst);
        }
    }

    fn check_limits(&self) {
        let (books, is_blocking) = (&self.books, self.entry.traits.is_blocking);
        let running = books.running.fetch_add(1, SeqCst);
        let limit = books.rules.max_running;
        let within = limit.is_none_or(|limit| running < limit);
        books.expect(within, || format!("{running} ran under {limit:?}"));
        if is_blocking {
            let running = books.running_blocking.fetch_add(1, SeqCst);
            let limit = books.rules.max_blocking;
            let within = limit.is_none_or(|limit| running < limit);
            books.expect(within, || format!("{running} blocking under {limit:?}"));
        }
    }

    /// How the task is about to end, if nobody ends it otherwise.
    pub(super) fn reach(&self, end: u8) {
        let entry = &self.entry;
        entry.reached.store(end, SeqCst);
        let has_begun = entry.begun.load(SeqCst) > 0;
        // A thread that outlives its task's end fails for nobody, and a destructor only for a task that ran.
        if end != COMPLETED && has_begun && !entry.traits.may_outlive_its_end() {
            entry.request.fail();
        }
    }

    /// The condition is about to panic.
    pub(super) fn condition_fails(&self) {
        self.reach(PANICKED);
        self.entry.request.fail();
    }
}

impl Begun<'_> {
    pub(super) fn reach(self, end: u8) {
        self.token.reach(end);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let Token { books, entry } = self.token;
        books.running.fetch_sub(1, SeqCst);
        if entry.traits.is_blocking {
            books.running_blocking.fetch_sub(1, SeqCst);
        }
        if self.exclusive {
            entry.request.busy.store(false, SeqCst);
        }
    }
}

/// The checks, when all is over.
impl Books {
    /// Tasks whose tokens somebody still holds.
    pub(super) fn alive(&self, but_for_threads: bool) -> Vec<usize> {
        let entries = self.entries.lock().unwrap();
        let alive = entries.iter().filter(|entry| Arc::strong_count(entry) > 1);
        let counted =
            alive.filter(|entry| !(but_for_threads && entry.traits.may_outlive_its_end()));
        counted.map(|entry| entry.number).collect()
    }

    /// Nobody holds what a task captured.
    pub(super) fn check_gone(&self, but_for_threads: bool, when: &str) {
        let alive = self.alive(but_for_threads);
        self.expect(alive.is_empty(), || {
            format!("{when}: {} alive", some_of(&alive))
        });
    }

    /// `idle` has returned, or all else is over: every task is told.
    pub(super) fn check_told(&self, stats: Stats, when: &str) {
        let (accepted, ended) = (self.accepted(), ended(stats));
        let waiting = stats.pending + stats.awaiting_response;
        let books = (stats.added, ended, waiting, stats.running);
        self.expect(books == (accepted, accepted, 0, 0), || {
            format!("{when}: {accepted} accepted, {stats:?}")
        });
        if self.rules.observed {
            let told = self.told();
            self.expect(told == accepted, || {
                format!("{when}: {told} told of {accepted}")
            });
        }
    }

    pub(super) fn check(&self, all: &Final<'_>) {
        self.check_stops(all);
        self.check_bodies(all);
        if let Some(stats) = all.stats {
            self.check_told(stats, "at the end");
            self.check_sums(stats);
            self.check_aborted(stats, all);
        }
        if self.rules.observed {
            self.check_observer(all);
        }
    }

    /// All tasks that were to run did, unless their runtime was dropped.
    fn check_bodies(&self, all: &Final<'_>) {
        if all.report.is_some() || self.rules.max_pending.is_some() || self.rules.stops {
            return;
        }
        let entries = self.entries.lock().unwrap();
        let missing = entries.iter().filter(|entry| entry.must_have_run(all));
        let missing: Vec<_> = missing.map(|entry| entry.number).collect();
        drop(entries);
        let cancels = self.cancels();
        self.expect(missing.len() as u64 <= cancels, || {
            let missing = some_of(&missing);
            format!("{missing} did not run, and {cancels} were cancelled")
        });
    }

    /// Where a failure stops a request's tasks, only a cancelled one's failure counts for nothing.
    fn check_stops(&self, all: &Final<'_>) {
        let begun = self.begun_after_failure.load(SeqCst);
        let holds = begun <= self.cancels() || all.lost_a_runtime() || all.report.is_some();
        self.expect(holds, || format!("{begun} began after a failure"));
    }

    /// What the bodies say is what was counted, but for those that were ended when they had reached their own end.
    fn check_sums(&self, stats: Stats) {
        let otherwise = stats.aborted + stats.timed_out;
        let reached = |end| self.reached(end);
        let range = |ended: u64, reached: u64| (ended..=ended + otherwise).contains(&reached);
        let (completed, failed) = (reached(COMPLETED), reached(FAILED));
        self.expect(range(stats.completed, completed), || {
            format!("{completed} bodies completed, {stats:?}")
        });
        self.expect(range(stats.failed, failed), || {
            format!("{failed} bodies failed, {stats:?}")
        });
        let panicked = reached(PANICKED);
        self.expect(panicked <= stats.panicked + otherwise, || {
            format!("{panicked} tasks panicked, {stats:?}")
        });
    }

    fn reached(&self, end: u8) -> u64 {
        let entries = self.entries.lock().unwrap();
        let has_begun = entries.iter().filter(|entry| entry.begun.load(SeqCst) > 0);
        has_begun
            .filter(|entry| entry.reached.load(SeqCst) == end)
            .count() as u64
    }

    /// What was aborted was cancelled, or named by the shutdown, or has lost its runtime.
    fn check_aborted(&self, stats: Stats, all: &Final<'_>) {
        let named = all.report.map_or(0, |report| report.unfinished().len()) as u64;
        let (aborted, cancels) = (stats.aborted, self.cancels());
        let holds = if all.lost_a_runtime() {
            aborted >= cancels + named
        } else {
            aborted == cancels + named
        };
        self.expect(holds, || {
            format!("{aborted} aborted, {cancels} cancelled, {named} named")
        });
        let refuses = self.rules.max_pending.is_some() || all.report.is_some();
        let rejected = stats.rejected;
        self.expect(refuses || rejected == 0, || format!("{rejected} rejected"));
    }

    /// Each task is told once, and as its body says.
    fn check_observer(&self, all: &Final<'_>) {
        let told = self.told.lock().unwrap();
        for (id, (times, _)) in told.iter().filter(|(_, told)| told.0 != 1) {
            self.violation(format!("task {id} was told {times} times"));
        }
        let of_end = |end| told.iter().filter(move |(_, told)| told.1 == end);
        let aborted: HashSet<_> = of_end("aborted").map(|(id, _)| *id).collect();
        drop(told);
        self.check_names(&aborted, all);
        for entry in self.entries.lock().unwrap().iter() {
            self.check_entry(entry);
        }
    }

    fn check_names(&self, aborted: &HashSet<TaskId>, all: &Final<'_>) {
        let mut expected = self.cancelled.lock().unwrap().clone();
        let unfinished = all.report.map_or(&[][..], ShutdownReport::unfinished);
        for info in unfinished {
            let is_new = expected.insert(info.id());
            self.expect(is_new, || format!("task {} was cancelled too", info.id()));
            let end = self
                .named(info.name())
                .map(|entry| *entry.told.lock().unwrap());
            let is_aborted = end.is_none_or(|end| end == Some("aborted"));
            self.expect(is_aborted, || format!("{} is named: {end:?}", info.name()));
        }
        let holds = if all.lost_a_runtime() {
            aborted.is_superset(&expected)
        } else {
            *aborted == expected
        };
        self.expect(holds, || "what was aborted is not what was named".into());
    }

    fn check_entry(&self, entry: &Entry) {
        let Some(end) = *entry.told.lock().unwrap() else {
            return; // it has no name, or was given to no runner
        };
        let begun = entry.begun.load(SeqCst);
        let reached = entry.reached.load(SeqCst);
        let responded = entry.request.responded.load(SeqCst);
        let holds = match end {
            "completed" => begun == 1 && reached == COMPLETED,
            "failed" => begun == 1 && reached == FAILED,
            "panicked" => reached == PANICKED,
            "skipped" => {
                let by_choice = entry.traits.is_conditional || self.rules.stops;
                begun == 0 && (by_choice || !responded)
            }
            "rejected" => begun == 0,
            _ => true,
        };
        self.expect(holds, || {
            let number = entry.number;
            format!("task {number} was told {end}: begun {begun} times, reached {reached}, responded {responded}")
        });
    }
}

impl Entry {
    fn must_have_run(&self, all: &Final<'_>) -> bool {
        let waits_for_nothing = !self.traits.is_conditional && !self.traits.may_outlive_its_end();
        waits_for_nothing
            && self.accepted.load(SeqCst)
            && self.request.responded.load(SeqCst)
            && !all.dropped[self.request.runtime]
            && self.begun.load(SeqCst) == 0
    }
}

/// Their number, and the first few.
fn some_of(tasks: &[usize]) -> String {
    let some = &tasks[..tasks.len().min(5)];
    format!("{} tasks (such as {some:?})", tasks.len())
}

/// For a run that hangs.
impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, alive) = (self.accepted(), some_of(&self.alive(false)));
        write!(
            f,
            "{accepted} accepted, {} told, {alive} alive",
            self.told()
        )?;
        self.violations()
            .iter()
            .try_for_each(|violation| write!(f, "; {violation}"))
    }
}

fn ended(stats: Stats) -> u64 {
    let Stats {
        completed,
        failed,
        panicked,
        timed_out,
        skipped,
        rejected,
        aborted,
        ..
    } = stats;
    completed + failed + panicked + timed_out + skipped + rejected + aborted
}
