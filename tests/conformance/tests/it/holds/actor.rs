//! [`Actor`]: a handler, or whoever has its handles, doing random things with tasks and holds.

use std::{
    future::poll_fn,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use tower_background_tasks::{AddTaskError, BackgroundTasks, Held, Runner, Stats, Task};

use super::{
    model::{COMPLETED, Model, Token, Traits},
    rules::Rules,
    tally::Tally,
};
use crate::load::Random;

/// Longer than a case: no task adds tasks that add tasks without an end.
const MOST_TASKS: usize = 40;
const DEEPEST: u64 = 3;

/// Why a handler gives no response.
#[derive(Debug)]
pub(super) struct RolledBack;

/// What all parties of one case share.
pub(super) struct Case {
    pub(super) rules: Rules,
    pub(super) runner: Runner,
    pub(super) model: Arc<Model>,
    pub(super) tally: Arc<Tally>,
    /// Handles that outlive their handlers.
    pub(super) kept: Mutex<Vec<Handle>>,
    /// Holds that go from one party to another.
    pub(super) stash: Mutex<Vec<Hold>>,
    lanes: AtomicUsize,
}

impl Case {
    pub(super) fn new(rules: Rules, tally: &Arc<Tally>) -> Arc<Self> {
        let model = Arc::new(Model::new(rules.is_concurrent, rules.is_threaded));
        Arc::new(Self {
            rules,
            runner: rules.runner(&model),
            model,
            tally: tally.clone(),
            kept: Mutex::default(),
            stash: Mutex::default(),
            lanes: AtomicUsize::new(1),
        })
    }

    /// On one thread all that happens is in one sequence.
    fn lane(&self) -> usize {
        match self.rules.is_threaded {
            true => self.lanes.fetch_add(1, SeqCst),
            false => 0,
        }
    }
}

#[derive(Clone)]
pub(super) struct Handle {
    pub(super) queue: usize,
    pub(super) tasks: BackgroundTasks,
}

/// A hold, which tells the model how it ends, whichever way that is.
pub(super) struct Hold {
    model: Arc<Model>,
    queue: usize,
    held: Option<Held>,
}

impl Hold {
    pub(super) fn new(model: &Arc<Model>, of: &Handle) -> Self {
        Self {
            model: model.clone(),
            queue: model.hold(of.queue),
            held: Some(of.tasks.hold()),
        }
    }

    pub(super) fn handle(&self) -> Handle {
        let held = self.held.as_ref().expect("it has not ended");
        Handle {
            queue: self.queue,
            tasks: BackgroundTasks::clone(held),
        }
    }

    pub(super) fn release(mut self, lane: usize) {
        if let Some(held) = self.held.take() {
            self.model.released(self.queue, lane);
            held.release();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.model.dropped(self.queue);
            drop(held);
        }
    }
}

pub(super) struct Actor {
    pub(super) case: Arc<Case>,
    pub(super) lane: usize,
    pub(super) random: Random,
    pub(super) handles: Vec<Handle>,
    pub(super) holds: Vec<Hold>,
    /// It is a handler: its panics and errors are the request's.
    pub(super) may_fail: bool,
    /// It takes the handles that others keep.
    is_late: bool,
}

impl Actor {
    pub(super) fn handler(case: &Arc<Case>, seed: u64, handles: Vec<Handle>) -> Self {
        Self {
            lane: case.lane(),
            case: case.clone(),
            random: Random::new(seed),
            handles,
            holds: Vec::new(),
            may_fail: true,
            is_late: false,
        }
    }

    pub(super) fn late(case: &Arc<Case>, seed: u64) -> Self {
        Self {
            may_fail: false,
            is_late: true,
            ..Self::handler(case, seed, Vec::new())
        }
    }

    /// Does so many things.
    ///
    /// # Errors
    ///
    /// This returns an error if a transaction is rolled back and the handler gives up.
    pub(super) async fn play(&mut self, steps: u64) -> Result<(), RolledBack> {
        for _ in 0..steps {
            if self.is_late {
                self.handles = self.case.kept.lock().unwrap().clone();
            }
            self.step().await?;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<(), RolledBack> {
        match self.random.below(20) {
            0..=4 => self.add_somewhere(),
            5..=7 => self.hold_something(),
            8..=10 => {
                if let Some(hold) = self.take_hold() {
                    hold.release(self.lane);
                }
            }
            11 => drop(self.take_hold()),
            12 => {
                if let Some(hold) = self.take_hold() {
                    self.case.stash.lock().unwrap().push(hold);
                }
            }
            13 => {
                let hold = self.case.stash.lock().unwrap().pop();
                self.holds.extend(hold);
            }
            14..=15 => pause().await,
            16 => self.nap().await,
            17..=18 => {
                let result = self.transact_somewhere().await;
                if self.may_fail && self.random.below(3) == 0 {
                    result?;
                }
            }
            _ => {
                if self.may_fail && self.random.below(6) == 0 {
                    panic!("on purpose: a handler");
                }
            }
        }
        Ok(())
    }

    fn add_somewhere(&mut self) {
        if let Some(to) = self.pick() {
            self.add(&to);
        }
    }

    fn hold_something(&mut self) {
        if let Some(of) = self.pick().filter(|_| self.holds.len() < 5) {
            let hold = Hold::new(&self.case.model, &of);
            self.holds.push(hold);
        }
    }

    /// A queue, or a hold, so that holds are held in turn.
    fn pick(&mut self) -> Option<Handle> {
        let (handles, all) = (self.handles.len(), self.handles.len() + self.holds.len());
        if all == 0 {
            return None;
        }
        let picked = self.random.below(all as u64) as usize;
        Some(match self.handles.get(picked) {
            Some(handle) => handle.clone(),
            None => self.holds[picked - handles].handle(),
        })
    }

    fn take_hold(&mut self) -> Option<Hold> {
        let count = self.holds.len() as u64;
        (count > 0).then(|| self.holds.swap_remove(self.random.below(count) as usize))
    }

    /// Without a clock that is fast, it is a pause.
    async fn nap(&mut self) {
        match self.case.rules.is_threaded {
            true => pause().await,
            false => tokio::time::sleep(Duration::from_millis(1 + self.random.below(20))).await,
        }
    }

    async fn transact_somewhere(&mut self) -> Result<(), RolledBack> {
        match self.pick() {
            Some(of) => self.transact(of, 1).await,
            None => Ok(()),
        }
    }

    /// What a handler does with a database, and now and then a savepoint within.
    async fn transact(&mut self, of: Handle, depth: u64) -> Result<(), RolledBack> {
        let hold = Hold::new(&self.case.model, &of);
        self.add(&hold.handle());
        pause().await;
        if depth < DEEPEST && self.random.below(3) == 0 {
            let within = Box::pin(self.transact(hold.handle(), depth + 1)).await;
            if self.random.below(2) == 0 {
                within?;
            }
        }
        self.commit().await?;
        if self.random.below(3) == 0 {
            self.add(&hold.handle());
        }
        hold.release(self.lane);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), RolledBack> {
        if self.random.below(2) == 0 {
            self.nap().await;
        }
        match self.random.below(8) {
            0 | 1 => Err(RolledBack),
            2 if self.may_fail => panic!("on purpose: a commit"),
            _ => Ok(()),
        }
    }
}

/// Tasks.
impl Actor {
    pub(super) fn add(&mut self, to: &Handle) {
        if self.case.model.tasks() >= MOST_TASKS {
            return;
        }
        let kind = Kind::random(&mut self.random, self.case.rules.has_blocking);
        let traits = Traits {
            always: self.random.below(4) == 0,
            end: kind.end(),
        };
        let token = self.case.model.task(to.queue, self.lane, traits);
        let number = token.number;
        let mut task = self.task(kind, token, to);
        if traits.always {
            task = task.run_if(|_| true);
        }
        if self.case.rules.is_named {
            task = task.named(number.to_string());
        }
        if self.case.rules.is_named && self.random.below(2) == 0 {
            return to.tasks.add_task(task);
        }
        let before = self.case.runner.stats();
        let added = to.tasks.try_add_task(task);
        self.check_limit(before, &added);
        let model = &self.case.model;
        model.added(number, added.ok());
    }

    /// On one thread it is clear whether there is room.
    fn check_limit(&self, before: Stats, added: &Result<impl Sized, AddTaskError>) {
        let Rules {
            max_pending,
            is_threaded,
            ..
        } = self.case.rules;
        let waiting = match added {
            Err(AddTaskError::Full(_)) => before.pending,
            Err(AddTaskError::FullOfAwaiting(_)) => before.awaiting_response,
            _ => return,
        };
        let limit = max_pending.unwrap_or(usize::MAX) as u64;
        if waiting < limit && !is_threaded {
            let text = format!("refused with {waiting} waiting under {limit}");
            self.case.model.violation(text);
        }
    }

    fn task(&mut self, kind: Kind, token: Token, to: &Handle) -> Task {
        match kind {
            Kind::Completes => Task::new(async move { drop(token.begin()) }),
            Kind::Yields => Task::new(async move {
                let _running = token.begin();
                pause().await;
                pause().await;
            }),
            Kind::Fails => Task::new(async move {
                drop(token.begin());
                Err::<(), _>("on purpose")
            }),
            Kind::Panics => Task::new(async move {
                let _running = token.begin();
                panic!("on purpose: a task");
            }),
            Kind::Blocks => Task::blocking(move || drop(token.begin())),
            Kind::Acts => self.acting(token, to),
            Kind::Releases => self.releasing(token, to),
        }
    }

    /// A task that adds tasks and makes transactions where it was added. A stand-alone queue that nobody takes would leak
    /// with a task that holds it.
    fn acting(&mut self, token: Token, to: &Handle) -> Task {
        let (case, seed) = (self.case.clone(), self.random.next());
        let handles = match case.model.is_owned(to.queue) {
            true => vec![to.clone()],
            false => Vec::new(),
        };
        Task::new(async move {
            let running = token.begin();
            let mut actor = Actor {
                may_fail: false,
                ..Actor::handler(&case, seed, handles)
            };
            actor.add_somewhere();
            let _ = actor.transact_somewhere().await;
            drop(running);
        })
    }

    /// A task that ends a hold, by its drop at the latest.
    fn releasing(&mut self, token: Token, to: &Handle) -> Task {
        let (is_kept, releases) = (self.case.model.is_request(to.queue), self.random.below(3));
        let hold = if is_kept { self.take_hold() } else { None };
        let case = self.case.clone();
        Task::new(async move {
            let running = token.begin();
            pause().await;
            if let Some(hold) = hold.filter(|_| releases > 0) {
                hold.release(case.lane());
            }
            drop(running);
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Completes,
    Yields,
    Fails,
    Panics,
    Blocks,
    Acts,
    Releases,
}

impl Kind {
    fn random(random: &mut Random, has_blocking: bool) -> Self {
        match random.below(20) {
            0..=8 => Self::Completes,
            9..=12 => Self::Yields,
            13 => Self::Fails,
            14 => Self::Panics,
            15 if has_blocking => Self::Blocks,
            15..=17 => Self::Acts,
            _ => Self::Releases,
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Fails => "failed",
            Self::Panics => "panicked",
            _ => COMPLETED,
        }
    }
}

/// An await point, at which a client may leave.
pub(super) async fn pause() {
    let mut paused = false;
    poll_fn(|cx| {
        if mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
