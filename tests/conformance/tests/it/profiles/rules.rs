//! What a profile sets, and what a seed makes of it.

use std::time::Duration;

use tower_background_tasks::{OnFailure, Order, RunnerBuilder};

use crate::load::Random;

/// What the runner of a run is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Profile {
    /// Nothing is set.
    Plain,
    /// `max_running`, `max_blocking` and `max_pending`.
    Limits,
    /// `on_task_end`, which panics now and then.
    Observer,
    /// `Order::Concurrent`.
    Concurrent,
    /// `task_timeout`.
    Timeouts,
    /// `OnFailure::Stop`.
    Stop,
    /// Nothing is set; one runner for up to five runtimes.
    Runtimes,
    /// As any of the others; on 0 to 8 workers.
    Workers,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    #[default]
    Idle,
    Shutdown,
    RuntimeDropped,
    /// The last handle of the runner is.
    RunnerDropped,
}

impl Ending {
    pub(super) const ALL: [Self; 4] = [
        Self::Idle,
        Self::Shutdown,
        Self::RuntimeDropped,
        Self::RunnerDropped,
    ];
}

/// One run, as its seed says.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) is_concurrent: bool,
    pub(super) stops: bool,
    pub(super) max_running: Option<usize>,
    pub(super) max_blocking: Option<usize>,
    pub(super) max_pending: Option<usize>,
    pub(super) task_timeout: Option<Duration>,
    pub(super) observed: bool,
    pub(super) ending: Ending,
    /// How many workers each runtime has, 0 for a current-thread one. Those of one group are there side by side, and the groups
    /// one after another; all but the last end idle.
    pub(super) runtimes: Vec<Vec<usize>>,
    /// The runner has one besides, which its tasks run on.
    pub(super) own_runtime: bool,
    /// How many of the last group's are dropped, where the ending is that.
    pub(super) dropped: usize,
    /// Threads of each runtime's blocking pool.
    pub(super) blocking_threads: usize,
    /// In each runtime.
    pub(super) clients: usize,
    /// Of each client.
    pub(super) requests: usize,
}

impl Rules {
    pub(super) fn new(profile: Profile, seed: u64) -> Self {
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let runtimes = runtimes(profile, seed, &mut random);
        let last = runtimes.last().map_or(1, Vec::len) as u64;
        let mut rules = Self {
            ending: Ending::ALL[(seed % 4) as usize],
            runtimes,
            dropped: 1 + random.below(last) as usize,
            blocking_threads: [1, 4, 64][random.below(3) as usize],
            clients: 1 + random.below(8) as usize,
            ..Self::default()
        };
        rules.set(profile, &mut random);
        rules.requests = rules.share(&mut random);
        rules
    }

    /// A few tasks in all, or many thousands.
    fn share(&self, random: &mut Random) -> usize {
        let runtimes: usize = self.runtimes.iter().map(Vec::len).sum();
        let requests = 1 << (3 + random.below(9));
        (requests / (self.clients * runtimes)).max(1)
    }

    fn set(&mut self, profile: Profile, random: &mut Random) {
        match profile {
            Profile::Plain => return,
            Profile::Runtimes => self.own_runtime = random.below(4) == 0,
            Profile::Observer => self.observed = true,
            Profile::Limits => self.limit(random),
            Profile::Concurrent => self.is_concurrent = true,
            Profile::Timeouts => {
                self.task_timeout = Some(Duration::from_micros(200 << random.below(8)));
            }
            Profile::Stop => self.stops = true,
            Profile::Workers => return self.set(Self::any(random), random),
        }
        self.observed |= random.below(4) == 0;
    }

    fn any(random: &mut Random) -> Profile {
        match random.below(10) {
            0 => Profile::Limits,
            1 => Profile::Observer,
            2 => Profile::Concurrent,
            3 => Profile::Timeouts,
            4 => Profile::Stop,
            _ => Profile::Plain,
        }
    }

    fn limit(&mut self, random: &mut Random) {
        let which = 1 + random.below(7);
        let some = |bit: u64, limit| (which & bit != 0).then_some(limit);
        self.max_running = some(1, 1 << random.below(6));
        self.max_blocking = some(2, 1 << random.below(4));
        self.max_pending = some(4, 8 << random.below(7));
    }

    /// Tasks that never end by themselves come to an end all the same.
    pub(super) fn ends_all(&self) -> bool {
        let groups = self.runtimes.len();
        let all_are_dropped = self.dropped == self.runtimes[groups - 1].len();
        groups == 1
            && match self.ending {
                Ending::Shutdown => true,
                Ending::RuntimeDropped => all_are_dropped && !self.own_runtime,
                Ending::Idle | Ending::RunnerDropped => false,
            }
    }

    pub(super) fn builder(&self) -> RunnerBuilder {
        let mut builder = tower_background_tasks::Runner::builder();
        if self.is_concurrent {
            builder = builder.order(Order::Concurrent);
        }
        if self.stops {
            builder = builder.on_failure(OnFailure::Stop);
        }
        if let Some(timeout) = self.task_timeout {
            builder = builder.task_timeout(timeout);
        }
        self.limited(builder)
    }

    fn limited(&self, mut builder: RunnerBuilder) -> RunnerBuilder {
        if let Some(limit) = self.max_running {
            builder = builder.max_running(limit);
        }
        if let Some(limit) = self.max_blocking {
            builder = builder.max_blocking(limit);
        }
        if let Some(limit) = self.max_pending {
            builder = builder.max_pending(limit).max_awaiting_response(limit);
        }
        builder
    }
}

fn runtimes(profile: Profile, seed: u64, random: &mut Random) -> Vec<Vec<usize>> {
    match profile {
        Profile::Workers => vec![vec![(seed % 9) as usize]],
        Profile::Runtimes => several(random),
        _ => vec![vec![random.below(3) as usize]],
    }
}

/// Two to five: side by side, one after another, or a mixture.
fn several(random: &mut Random) -> Vec<Vec<usize>> {
    let mut groups = vec![vec![random.below(3) as usize]];
    let (count, joins) = (1 + random.below(4), random.below(3));
    for _ in 0..count {
        let workers = random.below(3) as usize;
        let side_by_side = joins == 0 || joins == 1 && random.below(2) == 0;
        match groups.last_mut() {
            Some(group) if side_by_side => group.push(workers),
            _ => groups.push(vec![workers]),
        }
    }
    groups
}
