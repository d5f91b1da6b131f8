//! What must be true of each task, by what was done to the queues alone.
//!
//! A queue is a request's, a stand-alone one, or a hold of another. The end of a task follows from where its queue's tasks went in
//! the end, whichever thread did what first. A lane is a party that acts in sequence: what one lane adds must run in its order.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tower_background_tasks::{SkipReason, TaskEnd, TaskId, TaskReport};

pub(super) const COMPLETED: &str = "completed";
pub(super) const NOT_RELEASED: &str = "not released";
pub(super) const NO_RESPONSE: &str = "no response";
pub(super) const ABORTED: &str = "aborted";
pub(super) const REJECTED: &str = "rejected";

/// Where the tasks of a queue go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// They run when this request's response has ended, or are skipped if there is none.
    Request { answered: bool },
    /// Nobody has taken them.
    StandAlone,
    /// They wait for a release.
    Held,
    /// They went to this queue, by a release or with a response.
    Moved(usize),
    /// They were held and not released.
    Dropped,
}

struct Node {
    place: Place,
    /// Of a hold, where a release takes its tasks.
    into: usize,
    /// The queue had a runner when it was made.
    is_owned: bool,
    /// It is a stand-alone queue, or held for one.
    is_of_stand_alone: bool,
    /// A task of this request runs.
    is_busy: bool,
}

/// What is known of a task when it is made.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    /// It runs without a response, too.
    pub(super) always: bool,
    /// How it ends, if it runs.
    pub(super) end: &'static str,
}

pub(super) struct Entry {
    queue: usize,
    traits: Traits,
    pub(super) id: Option<TaskId>,
    /// `try_add_task` gave it back.
    is_refused: bool,
    is_cancelled: bool,
    pub(super) begun: u32,
    /// Its place in the order in which tasks began.
    began_at: usize,
    /// It began when the shutdown had returned.
    pub(super) is_too_late: bool,
}

/// What must become of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It ends in this way, and an observer is told.
    Ends(&'static str),
    /// It is dropped unseen, as no runner ever knew of it.
    Unseen,
    /// `try_add_task` gave it back.
    Refused,
    /// It was in a stand-alone queue's hold, which was dropped while a response took that queue.
    EndsOrUnseen(&'static str),
}

impl Fate {
    pub(super) fn end(self) -> Option<&'static str> {
        match self {
            Self::Ends(end) | Self::EndsOrUnseen(end) => Some(end),
            Self::Unseen | Self::Refused => None,
        }
    }

    pub(super) fn runs(self) -> bool {
        self.end()
            .is_some_and(|end| ![NOT_RELEASED, NO_RESPONSE, ABORTED].contains(&end))
    }
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    entries: Vec<Entry>,
    /// What a lane added to a queue, in its order.
    orders: HashMap<(usize, usize), Vec<usize>>,
    /// The lane moved its tasks of the one queue behind its own of the other.
    moved: HashMap<(usize, usize), usize>,
    begun: usize,
    is_shut_down: bool,
    told: HashMap<TaskId, Vec<&'static str>>,
    violations: Vec<String>,
}

/// What one case did, and what came of it.
#[derive(Default)]
pub(super) struct Model {
    state: Mutex<State>,
    /// The tasks that have not been dropped.
    alive: AtomicUsize,
    /// Tasks of a request run side by side.
    is_concurrent: bool,
    /// Several threads act at once, so a hold may be made while a response takes its queue.
    is_threaded: bool,
}

impl Model {
    pub(super) fn new(is_concurrent: bool, is_threaded: bool) -> Self {
        Self {
            is_concurrent,
            is_threaded,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn violation(&self, text: String) {
        self.lock().violations.push(text);
    }

    pub(super) fn request(&self) -> usize {
        self.lock()
            .node(Place::Request { answered: false }, None, true)
    }

    pub(super) fn stand_alone(&self) -> usize {
        self.lock().node(Place::StandAlone, None, false)
    }

    pub(super) fn hold(&self, of: usize) -> usize {
        let mut state = self.lock();
        let root = state.root(of);
        let is_owned = state.nodes[root].is_owned;
        state.node(Place::Held, Some(of), is_owned)
    }

    /// Its tasks are counted from the start, and a runner's loss of them is told.
    pub(super) fn is_owned(&self, queue: usize) -> bool {
        let state = self.lock();
        state.nodes[queue].is_owned && state.nodes[state.root(queue)].is_owned
    }

    pub(super) fn is_request(&self, queue: usize) -> bool {
        matches!(self.lock().nodes[queue].place, Place::Request { .. })
    }

    pub(super) fn answered(&self, request: usize) {
        self.lock().nodes[request].place = Place::Request { answered: true };
    }

    /// A response took this queue, or a hold of it was released.
    pub(super) fn moved(&self, queue: usize, into: usize, lane: usize) {
        let mut state = self.lock();
        state.nodes[queue].place = Place::Moved(into);
        let (from, to) = (state.list(queue, lane), state.list(into, lane));
        let moving = state.orders.remove(&(from, lane)).unwrap_or_default();
        state.orders.entry((to, lane)).or_default().extend(moving);
        state.moved.insert((from, lane), to);
    }

    pub(super) fn released(&self, hold: usize, lane: usize) {
        let into = self.lock().nodes[hold].into;
        self.moved(hold, into, lane);
    }

    pub(super) fn dropped(&self, hold: usize) {
        self.lock().nodes[hold].place = Place::Dropped;
    }

    /// Makes a task that `lane` is about to add to `queue`.
    pub(super) fn task(self: &Arc<Self>, queue: usize, lane: usize, traits: Traits) -> Token {
        let mut state = self.lock();
        let number = state.entries.len();
        state.entries.push(Entry {
            queue,
            traits,
            id: None,
            is_refused: false,
            is_cancelled: false,
            begun: 0,
            began_at: 0,
            is_too_late: false,
        });
        let list = state.list(queue, lane);
        state.orders.entry((list, lane)).or_default().push(number);
        drop(state);
        self.alive.fetch_add(1, SeqCst);
        let model = self.clone();
        Token { model, number }
    }

    /// Without an id the runner gave the task back.
    pub(super) fn added(&self, number: usize, id: Option<TaskId>) {
        let entry = &mut self.lock().entries[number];
        match id {
            Some(id) if id.as_u64() > 0 => entry.id = Some(id),
            Some(_) => {}
            None => entry.is_refused = true,
        }
    }

    /// The shutdown has returned.
    pub(super) fn shut_down(&self) {
        self.lock().is_shut_down = true;
    }

    pub(super) fn cancelled(&self, number: usize) {
        self.lock().entries[number].is_cancelled = true;
    }

    /// The id of the task, if it is known.
    pub(super) fn id_of(&self, random: u64) -> Option<(usize, TaskId)> {
        let state = self.lock();
        let number = random as usize % state.entries.len().max(1);
        Some((number, state.entries.get(number)?.id?))
    }

    /// What the observer hears. A task's name is its number, if tasks are named.
    pub(super) fn tell(&self, report: &TaskReport<'_>) {
        let end = match report.end() {
            TaskEnd::Skipped(SkipReason::NotReleased) => NOT_RELEASED,
            TaskEnd::Skipped(SkipReason::NoResponse) => NO_RESPONSE,
            end => end.as_str(),
        };
        let mut state = self.lock();
        state.told.entry(report.id()).or_default().push(end);
        let number = report.name().parse::<usize>().ok();
        if let Some(entry) = number.and_then(|number| state.entries.get_mut(number)) {
            entry.id = Some(report.id());
        }
    }

    pub(super) fn tasks(&self) -> usize {
        self.lock().entries.len()
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.load(SeqCst)
    }

    pub(super) fn take_violations(&self) -> Vec<String> {
        mem::take(&mut self.lock().violations)
    }

    /// Calls `check` for each task, with its fate and what was told of it.
    pub(super) fn for_each(&self, mut check: impl FnMut(usize, &Entry, Fate, &[&'static str])) {
        let state = self.lock();
        for (number, entry) in state.entries.iter().enumerate() {
            let told = entry.id.and_then(|id| state.told.get(&id));
            let fate = state.fate(entry, self.is_threaded);
            check(number, entry, fate, told.map_or(&[], Vec::as_slice));
        }
    }

    /// How many holds were released, and how many dropped.
    pub(super) fn holds(&self) -> (u64, u64) {
        let (mut released, mut dropped) = (0, 0);
        let state = self.lock();
        for (number, node) in state.nodes.iter().enumerate() {
            match node.place {
                Place::Moved(_) if node.into != number => released += 1,
                Place::Dropped => dropped += 1,
                _ => {}
            }
        }
        (released, dropped)
    }

    /// How many tasks the observer was told of, and whether it was told of one twice.
    pub(super) fn told(&self) -> (u64, bool) {
        let state = self.lock();
        let twice = state.told.values().any(|ends| ends.len() > 1);
        (state.told.len() as u64, twice)
    }

    /// Tasks that began before one that the same lane had put before them.
    pub(super) fn out_of_order(&self) -> Vec<usize> {
        let state = self.lock();
        let mut late = Vec::new();
        for list in state.orders.values() {
            let mut last = 0;
            for &number in list {
                let entry = &state.entries[number];
                if entry.begun > 0 {
                    if entry.began_at < last {
                        late.push(number);
                    }
                    last = entry.began_at;
                }
            }
        }
        late
    }
}

impl State {
    fn node(&mut self, place: Place, into: Option<usize>, is_owned: bool) -> usize {
        let number = self.nodes.len();
        self.nodes.push(Node {
            place,
            into: into.unwrap_or(number),
            is_owned,
            is_of_stand_alone: match into {
                Some(into) => self.nodes[into].is_of_stand_alone,
                None => place == Place::StandAlone,
            },
            is_busy: false,
        });
        number
    }

    /// Where the queue's tasks are now.
    fn root(&self, mut queue: usize) -> usize {
        while let Place::Moved(into) = self.nodes[queue].place {
            queue = into;
        }
        queue
    }

    /// The queue under which the lane's order for `queue` is kept.
    fn list(&self, mut queue: usize, lane: usize) -> usize {
        while let Some(into) = self.moved.get(&(queue, lane)) {
            queue = *into;
        }
        queue
    }

    fn fate(&self, entry: &Entry, is_threaded: bool) -> Fate {
        if entry.is_refused {
            return Fate::Refused;
        }
        if entry.is_cancelled {
            return Fate::Ends(ABORTED);
        }
        let root = &self.nodes[self.root(entry.queue)];
        match root.place {
            Place::Request { answered } if answered || entry.traits.always => {
                Fate::Ends(entry.traits.end)
            }
            Place::Request { .. } => Fate::Ends(NO_RESPONSE),
            Place::Dropped if is_threaded && root.is_of_stand_alone => {
                Fate::EndsOrUnseen(NOT_RELEASED)
            }
            Place::Dropped if root.is_owned => Fate::Ends(NOT_RELEASED),
            Place::Dropped | Place::StandAlone => Fate::Unseen,
            Place::Held | Place::Moved(_) => unreachable!("every hold has ended"),
        }
    }
}

/// What a task captures.
pub(super) struct Token {
    model: Arc<Model>,
    pub(super) number: usize,
}

impl Token {
    /// The body begins. What comes back is dropped when it ends.
    pub(super) fn begin(&self) -> Running<'_> {
        let mut state = self.model.lock();
        state.begun += 1;
        let (now, is_too_late) = (state.begun, state.is_shut_down);
        let entry = &mut state.entries[self.number];
        entry.begun += 1;
        (entry.began_at, entry.is_too_late) = (now, is_too_late);
        let (ran, queue) = (entry.begun, entry.queue);
        let root = state.root(queue);
        if ran > 1 {
            let text = format!("task {} ran twice", self.number);
            state.violations.push(text);
        }
        let place = state.nodes[root].place;
        if !matches!(place, Place::Request { .. }) {
            let text = format!("task {} ran: its queue is {place:?}", self.number);
            state.violations.push(text);
        }
        let was_busy = mem::replace(&mut state.nodes[root].is_busy, true);
        if was_busy && !self.model.is_concurrent {
            let text = format!("task {} runs beside another", self.number);
            state.violations.push(text);
        }
        drop(state);
        Running { token: self, root }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.model.alive.fetch_sub(1, SeqCst);
    }
}

/// A body that runs.
pub(super) struct Running<'a> {
    token: &'a Token,
    root: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.token.model.lock().nodes[self.root].is_busy = false;
    }
}
