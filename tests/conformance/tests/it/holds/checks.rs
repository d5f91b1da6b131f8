//! What is checked when a case is over: each task against its fate, and the books.

use std::{collections::HashSet, mem};

use tower_background_tasks::{ShutdownReport, Stats, TaskInfo};

use super::{
    actor::Case,
    model::{ABORTED, COMPLETED, Entry, Fate, REJECTED},
};

/// Gives what is wrong.
pub(super) fn check(case: &Case, report: Option<&ShutdownReport>) -> Vec<String> {
    let mut checks = Checks {
        case,
        report,
        named: report.map_or(HashSet::new(), |report| {
            let rows = report.unfinished().iter();
            rows.map(|row| TaskInfo::id(row).as_u64()).collect()
        }),
        wrong: case.model.take_violations(),
        lost: 0,
        aborted: 0,
        cancelled: 0,
        expected: Counts::default(),
    };
    let stats = case.runner.stats();
    checks.tasks();
    checks.books(stats);
    checks.ends(stats);
    checks.order();
    checks.wrong
}

/// How many tasks must end in each way.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    completed: u64,
    failed: u64,
    panicked: u64,
    skipped: u64,
    aborted: u64,
}

impl Counts {
    fn of(stats: Stats) -> Self {
        Self {
            completed: stats.completed,
            failed: stats.failed,
            panicked: stats.panicked,
            skipped: stats.skipped,
            aborted: stats.aborted,
        }
    }

    fn add(&mut self, end: &str) {
        *match end {
            COMPLETED => &mut self.completed,
            "failed" => &mut self.failed,
            "panicked" => &mut self.panicked,
            ABORTED => &mut self.aborted,
            _ => &mut self.skipped,
        } += 1;
    }
}

struct Checks<'a> {
    case: &'a Case,
    report: Option<&'a ShutdownReport>,
    /// The tasks that the shutdown named.
    named: HashSet<u64>,
    wrong: Vec<String>,
    /// Tasks that had to run and did not.
    lost: u64,
    /// Tasks that an observer was told were aborted.
    aborted: u64,
    cancelled: u64,
    expected: Counts,
}

impl Checks<'_> {
    fn expect(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(text());
        }
    }

    /// A shutdown may end any task otherwise than its fate says.
    fn is_shut_down(&self) -> bool {
        self.report.is_some()
    }

    fn may_reject(&self) -> bool {
        self.is_shut_down() || self.case.rules.max_pending.is_some()
    }

    fn tasks(&mut self) {
        let case = self.case;
        case.model.for_each(|number, entry, fate, told| {
            self.task(number, entry, fate, told);
        });
    }

    fn task(&mut self, number: usize, entry: &Entry, fate: Fate, told: &[&'static str]) {
        let begun = entry.begun > 0;
        if let Some(end) = fate.end() {
            self.expected.add(end);
        }
        self.cancelled += u64::from(fate == Fate::Ends(ABORTED));
        // A task that was cancelled may have begun before.
        let may_begin = fate.runs() || fate == Fate::Ends(ABORTED);
        self.expect(may_begin || !begun, || {
            format!("task {number} ran: {fate:?}")
        });
        if fate.runs() && !begun {
            self.lost += 1;
            let may_be_lost = self.may_reject();
            self.expect(may_be_lost, || {
                format!("task {number} is missing: {fate:?}")
            });
        }
        self.told(number, entry, fate, told);
    }

    fn told(&mut self, number: usize, entry: &Entry, fate: Fate, told: &[&'static str]) {
        let Some(id) = entry.id.filter(|_| self.case.rules.is_observed) else {
            return;
        };
        let is_named = self.named.contains(&id.as_u64());
        let (end, is_one) = match told {
            [end] => (*end, true),
            _ => ("", false),
        };
        self.aborted += u64::from(end == ABORTED);
        let fits = match (fate, end) {
            (Fate::Unseen | Fate::Refused, _) => false,
            (_, ABORTED) if is_named => true,
            (_, REJECTED) => self.may_reject() && entry.begun == 0,
            _ => fate.end() == Some(end),
        };
        // A worker may have taken a task just before the shutdown ended it.
        let too_late = entry.is_too_late && end != ABORTED;
        self.expect(!too_late, || {
            format!("task {number} began after the shutdown: {told:?}")
        });
        self.expect(is_one && fits, || {
            format!("task {number} ended {told:?}: {fate:?}, named {is_named}")
        });
    }

    fn books(&mut self, stats: Stats) {
        let Stats {
            added,
            pending,
            running,
            rejected,
            ..
        } = stats;
        let counts = Counts::of(stats);
        let ended = counts.completed
            + counts.failed
            + counts.panicked
            + counts.skipped
            + counts.aborted
            + rejected;
        let balance = (added, pending, running) == (ended, 0, 0);
        self.expect(balance, || format!("the books do not balance: {stats:?}"));
        let listed = self.case.runner.tasks();
        self.expect(listed.is_empty(), || format!("listed: {listed:?}"));
        let alive = self.case.model.alive();
        self.expect(alive == 0, || format!("{alive} tasks are alive"));
        let named = self.named.len() as u64;
        let cancelled = self.cancelled;
        self.expect(stats.aborted == named + cancelled, || {
            format!("{named} named, {cancelled} cancelled: {stats:?}")
        });
        if self.case.rules.is_observed {
            let told = self.case.model.told();
            self.expect(told == (added, false), || {
                format!("told {told:?}: {stats:?}")
            });
        }
    }

    /// Without what may end a task otherwise, each end is counted as often as it must be.
    fn ends(&mut self, stats: Stats) {
        let lost = self.lost;
        self.expect(lost <= stats.aborted + stats.rejected, || {
            format!("{lost} are missing: {stats:?}")
        });
        if self.may_reject() {
            return;
        }
        let (expected, counts) = (mem::take(&mut self.expected), Counts::of(stats));
        let fits =
            expected == counts || self.case.rules.is_threaded && expected.skipped != counts.skipped;
        self.expect(fits && stats.rejected == 0, || {
            format!("expected {expected:?}: {stats:?}")
        });
    }

    fn order(&mut self) {
        if !self.case.rules.is_concurrent {
            let late = self.case.model.out_of_order();
            self.expect(late.is_empty(), || format!("out of order: {late:?}"));
        }
    }
}
