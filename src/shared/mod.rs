//! What the parts of one runner share: settings, counts, waiters and the registry.
//!
//! It uses `observe`, `task` and below. It knows nothing of queues, nor of how tasks are run.

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
    /// How many blocking tasks have timed out while their threads still run.
    overdue: AtomicUsize,
    slow_polls: AtomicU64,
    /// What a dashboard shows. Empty until there is one.
    #[cfg(feature = "dashboard")]
    tally: OnceLock<Tally>,
    /// When a shutdown will be over, at the latest; or when the server will be told to stop.
    #[cfg(feature = "dashboard")]
    deadline: Mutex<Option<Instant>>,
    waiters: Waiters,
    /// Cancelled when a shutdown begins.
    pub(crate) closing: CancellationToken,
    /// A plan is about to end the server, which still takes requests.
    is_unready: AtomicBool,
    /// Requests are followed from now on until their responses end.
    follows_requests: AtomicBool,
    kept_open: KeptOpen,
    /// What shutdowns did not finish. A thread may lock a queue while it holds this lock, but not
    /// the reverse.
    pub(crate) unfinished: Mutex<Unfinished>,
    /// Failures that are summed up in the log.
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

    /// Waits until no request that is followed is open.
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

    /// Takes one of the `max_awaiting_response` places. The task is refused also if the runner has
    /// no place for more, as it will need one.
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

    /// Tasks no longer await their response: they wait for the runner, even past `max_pending`.
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

    /// The same, for a task that was never in a queue, and so took no place.
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

    /// Wakes the waiters, if what they wait for may have come.
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

    /// Waits until `is_over`. It may become so only when a batch or a task ends, and then all of
    /// either must have ended.
    pub(crate) async fn until(&self, is_over: impl Fn() -> bool) {
        self.waiters.until(is_over).await;
    }

    /// True if every added task had begun, and then no batch was unfinished, at one moment each
    /// during this call.
    pub(crate) fn is_settled(&self) -> bool {
        // In this order: a task that has begun has its batch counted.
        self.counters.is_begun() && self.is_quiet()
    }

    /// True if no batch was unfinished at some moment during this call.
    pub(crate) fn is_quiet(&self) -> bool {
        self.counters.is_quiet()
    }

    pub(crate) fn is_drained(&self) -> bool {
        // A task may end that has just kept a connection open: a guard, and then the count of its end.
        self.kept_open.is_empty() && self.counters.is_balanced() && self.kept_open.is_empty()
    }

    /// Has a shutdown wait for a connection. Returns its number.
    pub(crate) fn keep_open(&self, connection: OpenConnection) -> u64 {
        self.kept_open.insert(connection)
    }

    pub(crate) fn close_connection(&self, number: u64) {
        self.kept_open.remove(number);
        self.notify();
    }

    /// Notes for the report what is kept open at the end of a shutdown's time.
    pub(crate) fn note_kept_open(&self) {
        let kept_open = self.kept_open.rows();
        lock(&self.unfinished).connections.extend(kept_open);
    }

    /// True if anyone observes this end: an observer, a recorder or the log, or a dashboard, which is
    /// told of failures.
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

    /// Returns what counts the ends for a dashboard, from the first call on.
    #[cfg(feature = "dashboard")]
    pub(crate) fn tally(&self) -> &Tally {
        self.tally.get_or_init(Tally::new)
    }

    /// Counts an end for the dashboard, if there is one. This calls no user code: the caller may hold
    /// a queue's lock.
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

    /// Notes how long a shutdown may take, at most; or the server before it.
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

    /// Tells an end to each observer. Each is user code, and a panic in one does not silence the
    /// next.
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

    /// Tells of a poll that held its worker for too long. The caller has entered the task's span, if
    /// it `has_span`.
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

    /// The thread of an overdue task has returned.
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

    /// Returns how full the limits are that this keeps.
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

    /// Logs the failures that have been summed up by now.
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
