//! What the parts of one runner share: settings, counts, waiters and the registry.
//!
//! It uses `observe`, `task` and below. It does not know queues, or how tasks are run.

mod kept_open;
pub(crate) mod registry;
pub(crate) mod settings;
pub(crate) mod stats;
pub(crate) mod unfinished;
mod waiters;

#[cfg(feature = "tracing")]
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    kept_open::KeptOpen,
    settings::Settings,
    stats::{Counters, CountersHere, Stats},
    unfinished::Unfinished,
    waiters::Waiters,
};
#[cfg(feature = "tracing")]
use crate::observe::repeats::Repeats;
#[cfg(feature = "dashboard")]
use crate::{observe::tally::Tally, util::sync::OnceLock};
use crate::{
    observe::{
        info::TaskInfo,
        limit_use::LimitUse,
        metrics::Metrics,
        open_connection::OpenConnection,
        report::{self, Report, TaskReport},
    },
    task::{add_error::Refusal, end::TaskEnd, id::TaskId, label::Label, request_info::RequestInfo},
    util::{
        contain::contain,
        sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, lock},
    },
};

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    counters: Counters,
    /// How many tasks wait for the runner. Kept only where `max_pending` limits them.
    pending: AtomicUsize,
    /// How many tasks await their response. Kept only where `max_awaiting_response` limits them.
    awaiting_response: AtomicUsize,
    /// How many blocking tasks have timed out while their threads still run them.
    overdue: AtomicUsize,
    slow_polls: AtomicU64,
    /// What a dashboard shows. Empty until a dashboard exists.
    #[cfg(feature = "dashboard")]
    tally: OnceLock<Tally>,
    /// The latest time at which a shutdown ends. While the server still takes requests, the time
    /// at which it is told to stop.
    #[cfg(feature = "dashboard")]
    deadline: Mutex<Option<Instant>>,
    waiters: Waiters,
    /// Cancelled when a shutdown begins.
    pub(crate) closing: CancellationToken,
    /// True once [`Serve`](crate::Serve) begins to shut down. The server may still take requests.
    is_unready: AtomicBool,
    /// True if requests are followed until their responses end.
    follows_requests: AtomicBool,
    kept_open: KeptOpen,
    /// What shutdowns did not finish. A thread that holds this lock may lock a queue, but not the
    /// reverse.
    pub(crate) unfinished: Mutex<Unfinished>,
    /// Repeated failures, which the log sums up.
    #[cfg(feature = "tracing")]
    repeats: Arc<Repeats>,
    /// The recorded tasks. Empty unless the runner records.
    pub(crate) recorded: Mutex<Vec<TaskInfo>>,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        #[cfg(feature = "tracing")]
        let repeats = Repeats::new(settings.log_repeats_every.unwrap_or(Repeats::EVERY));
        Self {
            settings,
            metrics: Metrics::new(),
            #[cfg(feature = "tracing")]
            repeats,
            counters: Counters::default(),
            pending: AtomicUsize::new(0),
            awaiting_response: AtomicUsize::new(0),
            overdue: AtomicUsize::new(0),
            slow_polls: AtomicU64::new(0),
            #[cfg(feature = "dashboard")]
            tally: OnceLock::new(),
            #[cfg(feature = "dashboard")]
            deadline: Mutex::default(),
            waiters: Waiters::default(),
            closing: CancellationToken::new(),
            is_unready: AtomicBool::new(false),
            follows_requests: AtomicBool::new(false),
            kept_open: KeptOpen::default(),
            unfinished: Mutex::default(),
            recorded: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn follows_requests(&self) -> bool {
        self.follows_requests.load(Ordering::SeqCst)
    }

    pub(crate) fn follow_requests(&self) {
        self.follows_requests.store(true, Ordering::SeqCst);
    }

    pub(crate) fn request_opened(&self) {
        self.counters().request_opened();
    }

    pub(crate) fn request_ended(&self) {
        self.counters().request_ended();
        self.waiters.notify_if(|| self.has_no_request());
    }

    /// Waits until no followed request is open.
    pub(crate) async fn requests_ended(&self) {
        self.waiters.until(|| self.has_no_request()).await;
    }

    fn has_no_request(&self) -> bool {
        self.counters.has_no_request()
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.is_unready.load(Ordering::SeqCst) && !self.closing.is_cancelled()
    }

    pub(crate) fn make_unready(&self) {
        self.is_unready.store(true, Ordering::SeqCst);
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.counters.stats();
        if self.settings.max_pending.is_some() {
            stats.pending = self.pending.load(Ordering::SeqCst) as u64;
        }
        stats
    }

    /// Takes one of the `max_pending` places.
    #[inline]
    pub(crate) fn take_pending_place(&self) -> Result<(), Refusal> {
        take_place(&self.pending, self.settings.max_pending).map_err(|Full| Refusal::Full)
    }

    #[inline]
    pub(crate) fn give_back_pending_place(&self) {
        give_back_places(&self.pending, self.settings.max_pending, 1);
    }

    /// Takes one of the `max_awaiting_response` places. This also refuses the task if
    /// `max_pending` is reached, because the task will need one of those places later.
    #[inline]
    pub(crate) fn take_awaiting_place(&self) -> Result<(), Refusal> {
        if let Some(limit) = self.settings.max_pending {
            if self.pending.load(Ordering::SeqCst) >= limit {
                return Err(Refusal::Full);
            }
        }
        let limit = self.settings.max_awaiting_response;
        take_place(&self.awaiting_response, limit).map_err(|Full| Refusal::FullOfAwaiting)
    }

    #[inline]
    pub(crate) fn give_back_awaiting_place(&self) {
        let limit = self.settings.max_awaiting_response;
        give_back_places(&self.awaiting_response, limit, 1);
    }

    /// Counts a task whose response has not ended.
    #[inline]
    pub(crate) fn count_awaiting(&self) {
        self.counters().tasks_await();
    }

    /// Counts tasks that no longer await their response. They now wait for the runner, even beyond
    /// `max_pending`.
    #[inline]
    pub(crate) fn count_awaited(&self, tasks: usize) {
        self.counters().tasks_awaited(tasks);
        let limit = self.settings.max_awaiting_response;
        give_back_places(&self.awaiting_response, limit, tasks);
        if self.settings.max_pending.is_some() {
            self.pending.fetch_add(tasks, Ordering::SeqCst);
        }
    }

    #[inline]
    pub(crate) fn count_added(&self) -> TaskId {
        self.counters.task_added()
    }

    #[inline]
    pub(crate) fn count_begun(&self) {
        self.counters().task_begun();
    }

    /// Counts an end. The caller then calls [`notify`](Self::notify).
    #[inline]
    pub(crate) fn count_ended(&self, end: &TaskEnd) {
        self.counters().task_ended(end);
    }

    /// Counts the end of a task that never was in a queue, and so took no place.
    pub(crate) fn count_ended_at_once(&self, end: &TaskEnd) {
        let counters = self.counters();
        counters.task_begun();
        counters.task_ended(end);
    }

    pub(crate) fn count_batch(&self) {
        self.counters().batch_begun();
    }

    /// Counts the end of a batch and wakes the waiters.
    pub(crate) fn batch_ended(&self) {
        self.counters().batch_ended();
        self.notify();
    }

    /// Wakes the waiters if no batch is unfinished, or if every added task has ended.
    #[inline]
    pub(crate) fn notify(&self) {
        let counters = &self.counters;
        self.waiters
            .notify_if(|| counters.is_quiet() || counters.is_balanced());
    }

    /// Waits until no batch is unfinished.
    pub(crate) async fn quiet(&self) {
        self.until(|| self.is_quiet()).await;
    }

    /// Waits until every added task has ended.
    #[cfg(feature = "jobs")]
    pub(crate) async fn ended(&self) {
        self.until(|| self.counters.is_balanced()).await;
    }

    /// Waits until every added task has ended, and no connection is kept open.
    pub(crate) async fn drained(&self) {
        self.until(|| self.is_drained()).await;
    }

    /// Waits until `is_over` returns true. [`notify`](Self::notify) wakes waiters only when no
    /// batch is unfinished, or when every added task has ended. So `is_over` must imply one of the
    /// two.
    pub(crate) async fn until(&self, is_over: impl Fn() -> bool) {
        self.waiters.until(is_over).await;
    }

    /// True if, during this call, there was a moment when every added task had begun, and a later
    /// moment when no batch was unfinished.
    pub(crate) fn is_settled(&self) -> bool {
        // The order matters: a task's batch is counted before the task begins.
        self.counters.is_begun() && self.is_quiet()
    }

    /// True if no batch was unfinished at some moment during this call.
    pub(crate) fn is_quiet(&self) -> bool {
        self.counters.is_quiet()
    }

    pub(crate) fn is_drained(&self) -> bool {
        // The guards are checked twice. After the first check, a running task may take a guard and
        // end. It takes the guard before its end is counted, so the second check finds it.
        self.kept_open.is_empty() && self.counters.is_balanced() && self.kept_open.is_empty()
    }

    /// Makes a shutdown wait for a connection. Returns its number.
    pub(crate) fn keep_open(&self, connection: OpenConnection) -> u64 {
        self.kept_open.insert(connection)
    }

    pub(crate) fn close_connection(&self, number: u64) {
        self.kept_open.remove(number);
        self.notify();
    }

    /// Records the connections that are still open at the end of a shutdown, for its report.
    pub(crate) fn note_kept_open(&self) {
        let kept_open = self.kept_open.rows();
        lock(&self.unfinished).connections.extend(kept_open);
    }

    /// True if an observer, a recorder or the log receives this end. A dashboard receives only
    /// failures.
    #[inline]
    pub(crate) fn is_seen(&self, end: &TaskEnd) -> bool {
        cfg!(feature = "metrics")
            || self.settings.on_task_end.is_some()
            || report::is_logged(end)
            || (self.has_dashboard() && end.is_error())
    }

    #[inline]
    fn has_dashboard(&self) -> bool {
        #[cfg(feature = "dashboard")]
        return self.tally.get().is_some();
        #[cfg(not(feature = "dashboard"))]
        false
    }

    /// Returns the dashboard's tally, which counts ends from the first call on.
    #[cfg(feature = "dashboard")]
    pub(crate) fn tally(&self) -> &Tally {
        self.tally.get_or_init(Tally::new)
    }

    /// Counts an end for the dashboard, if there is one. This calls no user code, as the caller
    /// may hold a queue's lock.
    #[inline]
    pub(crate) fn tally_end(
        &self,
        label: &Label,
        begun: Option<Instant>,
        end: &TaskEnd,
        request: Option<&RequestInfo>,
    ) {
        #[cfg(feature = "dashboard")]
        if let Some(tally) = self.tally.get() {
            tally.count(label, begun, end, request);
        }
        #[cfg(not(feature = "dashboard"))]
        let _ = (label, begun, end, request);
    }

    /// Records how long the current step of a shutdown may take.
    pub(crate) fn note_deadline(&self, time: Duration) {
        #[cfg(feature = "dashboard")]
        {
            *lock(&self.deadline) = Instant::now().checked_add(time);
        }
        #[cfg(not(feature = "dashboard"))]
        let _ = time;
    }

    #[cfg(feature = "dashboard")]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        *lock(&self.deadline)
    }

    /// Reports an end to each observer. Each is user code. A panic in one does not keep the end
    /// from the next.
    pub(crate) fn tell(&self, report: &Report<'_>) {
        self.metrics.ended(report);
        #[cfg(feature = "dashboard")]
        if let Some(tally) = self.tally.get() {
            tally.keep_failure(report);
        }
        #[cfg(feature = "tracing")]
        report::log(report, &self.repeats);
        if let Some(observer) = &self.settings.on_task_end {
            let _ = contain(|| observer(&TaskReport::new(report)));
        }
    }

    /// Reports a poll that held its worker for too long. If the task `has_span`, the caller has
    /// entered that span.
    pub(crate) fn tell_slow_poll(
        &self,
        label: &Label,
        held: Duration,
        request: Option<&RequestInfo>,
        has_span: bool,
    ) {
        self.slow_polls.fetch_add(1, Ordering::SeqCst);
        self.metrics.slow_poll(&label.name, request);
        report::slow_poll(label, held, has_span);
    }

    pub(crate) fn count_overdue(&self) {
        self.overdue.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts the return of an overdue task's thread.
    pub(crate) fn count_returned(&self) {
        self.overdue.fetch_sub(1, Ordering::SeqCst);
    }

    #[cfg(any(feature = "dashboard", feature = "metrics"))]
    pub(crate) fn overdue(&self) -> usize {
        self.overdue.load(Ordering::SeqCst)
    }

    #[cfg(feature = "dashboard")]
    pub(crate) fn slow_polls(&self) -> u64 {
        self.slow_polls.load(Ordering::SeqCst)
    }

    /// Returns how full `max_pending` and `max_awaiting_response` are, if they are set.
    pub(crate) fn limits(&self) -> impl Iterator<Item = LimitUse> {
        let Settings {
            max_pending,
            max_awaiting_response,
            ..
        } = self.settings;
        let limits = [
            ("max_pending", &self.pending, max_pending),
            (
                "max_awaiting_response",
                &self.awaiting_response,
                max_awaiting_response,
            ),
        ];
        limits.into_iter().filter_map(|(name, used, limit)| {
            let (used, limit) = (used.load(Ordering::SeqCst), limit?);
            Some(LimitUse { name, used, limit })
        })
    }

    /// Logs the repeated failures that have been counted but not logged.
    pub(crate) fn flush_log(&self) {
        #[cfg(feature = "tracing")]
        self.repeats.flush();
    }

    #[inline]
    fn counters(&self) -> &CountersHere {
        self.counters.here()
    }
}

struct Full;

#[inline]
fn take_place(taken: &AtomicUsize, limit: Option<usize>) -> Result<(), Full> {
    let Some(limit) = limit else {
        return Ok(());
    };
    let one_more = |taken| (taken < limit).then_some(taken + 1);
    let taken = taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
    taken.map(drop).map_err(|_| Full)
}

#[inline]
fn give_back_places(taken: &AtomicUsize, limit: Option<usize>, places: usize) {
    if limit.is_some() {
        taken.fetch_sub(places, Ordering::SeqCst);
    }
}
