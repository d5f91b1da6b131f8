//! loom's models of the races in the queue, the registry, the limits and the counters. Each checks
//! all interleavings of the real code, with up to three preemptions.
//!
//! This is a module of the library (`src/lib.rs` has its path), as it uses crate-private items:
//! `RUSTFLAGS="--cfg background_tasks_loom" cargo test --release --lib loom_tests`. A batch runs on
//! the thread that schedules it. loom does not look into Tokio's semaphores and `Notify`: no thread
//! switches within them.

use std::{
    panic::Location,
    pin::pin,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicUsize as StdAtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Waker},
};

use loom::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use crate::{
    Order, ResponseEnd, ResponseOutcome, Runner, RunnerBuilder, Task,
    executor::Executor,
    observe::limit_use::LimitUse,
    queue::{
        Queue,
        owner::{Owner, Schedule},
        ready::Ready,
    },
    task::id::TaskId,
};

/// Runs a ready batch on the thread that schedules it.
struct Inline(Executor);

impl Schedule for Inline {
    fn schedule(&self, ready: Ready) {
        let mut batch = pin!(self.0.on_worker(ready));
        let mut cx = Context::from_waker(Waker::noop());
        while batch.as_mut().poll(&mut cx).is_pending() {
            thread::yield_now(); // the batch waits for a permit, or yields
        }
    }

    fn limits(&self) -> Vec<LimitUse> {
        self.0.limits()
    }
}

/// The same, and polls a batch only when it was woken: one that nobody wakes is a deadlock.
struct Woken(Executor);

impl Schedule for Woken {
    fn schedule(&self, ready: Ready) {
        loom::future::block_on(self.0.on_worker(ready));
    }

    fn limits(&self) -> Vec<LimitUse> {
        self.0.limits()
    }
}

fn runner(builder: RunnerBuilder) -> Runner {
    runner_on(builder, |executor| Box::new(Inline(executor)))
}

fn runner_on(
    builder: RunnerBuilder,
    scheduler: impl FnOnce(Executor) -> Box<dyn Schedule>,
) -> Runner {
    let executor = Executor::new(&builder.settings);
    let owner = Owner::new(builder.settings, scheduler(executor));
    Runner::of(Arc::new(owner))
}

fn of_response(runner: &Runner) -> Arc<Queue> {
    Queue::of_response(Arc::clone(runner.owner()))
}

fn of_no_request(runner: &Runner) -> Arc<Queue> {
    Queue::of_no_request(Arc::clone(runner.owner()))
}

fn end(queue: Arc<Queue>) {
    let status = Some(http::StatusCode::OK);
    queue.end(ResponseOutcome::new(ResponseEnd::Completed, status));
}

/// Checks `model` in all interleavings, and prints their number.
fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(StdAtomicUsize::new(0));
    let count = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        // An execution that cannot be replayed makes loom go on without end.
        assert!(count.fetch_add(1, Relaxed) < 1_000_000, "too many");
        model();
    });
    println!("loom: {name}: {} executions", executions.load(Relaxed));
}

/// Records what the tasks of a model did.
#[derive(Clone)]
struct Witness {
    inside: Arc<AtomicUsize>,
    ran: Arc<StdMutex<Vec<usize>>>,
}

impl Witness {
    fn new() -> Self {
        Self {
            inside: Arc::new(AtomicUsize::new(0)),
            ran: Arc::default(),
        }
    }

    /// Makes a task that checks that it runs alone, and records that it ran.
    fn task(&self, number: usize) -> Task {
        let witness = self.clone();
        Task::new(async move {
            assert_eq!(witness.inside.fetch_add(1, SeqCst), 0, "two at once");
            witness.ran.lock().unwrap().push(number);
            witness.inside.fetch_sub(1, SeqCst);
        })
    }

    fn ran(&self) -> Vec<usize> {
        self.ran.lock().unwrap().clone()
    }
}

fn add(queue: &Arc<Queue>, task: Task) {
    queue.add_or_reject(task, Location::caller());
}

fn aborted(runner: &Runner) -> usize {
    runner
        .owner()
        .shared
        .unfinished
        .lock()
        .unwrap()
        .aborted
        .len()
}

fn assert_balanced(runner: &Runner) {
    let stats = runner.stats();
    let ended = stats.completed + stats.rejected + stats.aborted;
    assert_eq!(stats.added, ended);
    assert_eq!((stats.pending, stats.running), (0, 0));
    assert!(runner.tasks().is_empty());
    assert!(runner.owner().queues.entries().is_empty());
}

#[test]
fn adding_against_the_end_of_the_response() {
    check("add against end", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_response(&runner);
        add(&queue, witness.task(0));
        let (ended, adding) = (Arc::clone(&queue), witness.clone());
        let ender = thread::spawn(move || end(ended));
        add(&queue, adding.task(1));
        ender.join().unwrap();
        assert_eq!(witness.ran(), [0, 1]);
        assert_balanced(&runner);
    });
}

#[test]
fn adding_against_the_last_tasks_end() {
    check("add against the last task's end", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_no_request(&runner);
        let (other, task) = (Arc::clone(&queue), witness.task(1));
        let adder = thread::spawn(move || add(&other, task));
        add(&queue, witness.task(0));
        adder.join().unwrap();
        let mut ran = witness.ran();
        ran.sort_unstable();
        assert_eq!(ran, [0, 1]);
        assert_balanced(&runner);
    });
}

#[test]
fn adding_against_shutdown() {
    check("add against shutdown", || {
        let (runner, witness) = (runner(Runner::builder().max_pending(2)), Witness::new());
        let queue = of_response(&runner);
        let (other, first, second) = (Arc::clone(&queue), witness.task(0), witness.task(1));
        let adder = thread::spawn(move || {
            add(&other, first);
            add(&other, second);
        });
        runner.owner().close();
        let _ = runner.owner().abort_all(|_| false);
        let rows = aborted(&runner);
        adder.join().unwrap();
        // Tasks added before are aborted and named. Tasks added later are refused.
        let stats = runner.stats();
        assert_eq!((stats.added, stats.aborted), (2, rows as u64));
        assert!(witness.ran().is_empty());
        assert_balanced(&runner);
        end(queue);
        assert_balanced(&runner);
    });
}

#[test]
fn cancelling_against_running() {
    check("cancel against run", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_response(&runner);
        let id = queue.add(witness.task(0), Location::caller()).unwrap();
        add(&queue, witness.task(1));
        let other = runner.clone();
        let canceller = thread::spawn(move || other.cancel(id));
        end(queue);
        let cancelled = canceller.join().unwrap();
        assert_eq!(witness.ran().last(), Some(&1));
        assert_eq!(runner.stats().aborted, u64::from(cancelled));
        assert_balanced(&runner);
    });
}

#[test]
fn two_shutdowns_tell_the_same() {
    check("two shutdowns", || {
        let runner = runner(Runner::builder());
        let queue = of_response(&runner);
        add(&queue, Task::new(async {}));
        let other = runner.clone();
        let shutdown = thread::spawn(move || {
            other.owner().close();
            let _ = other.owner().abort_all(|_| false);
            aborted(&other)
        });
        // The other call waits until all tasks have ended, and finds none to abort.
        loom::future::block_on(runner.owner().shared.drained());
        runner.owner().close();
        let _ = runner.owner().abort_all(|_| false);
        assert_eq!(aborted(&runner), 1);
        assert_eq!(shutdown.join().unwrap(), 1);
        assert_balanced(&runner);
    });
}

#[test]
fn two_ends_at_once() {
    check("two ends at once", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_response(&runner);
        add(&queue, witness.task(0));
        let (other, _kept) = (Arc::clone(&queue), Arc::clone(&queue));
        let ender = thread::spawn(move || end(other));
        end(queue);
        ender.join().unwrap();
        assert_eq!(witness.ran(), [0]);
        assert_balanced(&runner);
    });
}

#[test]
fn a_cut_against_the_end_of_the_response() {
    check("cut against end", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        runner.owner().shared.follow_requests();
        let queue = of_response(&runner);
        add(&queue, witness.task(0).run_if(|_| true)); // there may be no response
        let guarded = Arc::clone(&queue);
        let connection = thread::spawn(move || {
            let seen = guarded.seen().unwrap();
            let has_waited = seen.wait(Waker::noop());
            let ends = seen.note_end();
            if ends {
                end(Arc::clone(&guarded));
            }
            assert!(has_waited || !ends, "nothing passes after a cut");
            ends
        });
        let cut_off = runner.owner().cut_off_open();
        let is_cut_off = !cut_off.is_empty();
        drop(cut_off);
        assert_ne!(
            connection.join().unwrap(),
            is_cut_off,
            "one of them ends it"
        );
        assert_eq!(witness.ran(), [0]);
        loom::future::block_on(runner.owner().shared.requests_ended());
        assert_balanced(&runner);
    });
}

#[test]
fn waiters_for_the_requests_are_woken() {
    check("the wait for requests", || {
        let runner = runner(Runner::builder());
        runner.owner().shared.follow_requests();
        let queue = of_response(&runner);
        let ender = thread::spawn(move || end(queue));
        loom::future::block_on(runner.owner().shared.requests_ended());
        ender.join().unwrap();
    });
}

#[test]
fn merging_against_adding() {
    check("merge against add", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_response(&runner);
        let alone = Queue::stand_alone();
        add(&alone, witness.task(0));
        let (other, task) = (Arc::clone(&alone), witness.task(1));
        let adder = thread::spawn(move || add(&other, task));
        queue.merge(&alone);
        end(queue);
        adder.join().unwrap();
        assert_eq!(witness.ran(), [0, 1]);
        assert_balanced(&runner);
    });
}

#[test]
fn two_merges_of_the_same_pair() {
    check("two merges of the same pair", || {
        let one = Queue::stand_alone();
        let other = Queue::stand_alone();
        add(&one, Task::new(async {}));
        add(&other, Task::new(async {}));
        let (left, right) = (Arc::clone(&one), Arc::clone(&other));
        let merger = thread::spawn(move || left.merge(&right));
        other.merge(&one);
        merger.join().unwrap();
        assert_eq!((one.len(), other.len()), (2, 2));
    });
}

#[test]
fn a_task_admitted_before_the_close_is_counted_after_it() {
    check("add against close", || {
        let runner = runner(Runner::builder());
        let queue = of_response(&runner);
        let other = Arc::clone(&queue);
        let adder = thread::spawn(move || {
            let added = other.add(Task::new(async {}), Location::caller());
            added.is_ok()
        });
        runner.owner().close();
        let is_drained = runner.owner().shared.is_drained();
        let is_added = adder.join().unwrap();
        assert!(!(is_added && is_drained));
        end(queue);
        assert_balanced(&runner);
    });
}

#[test]
fn waiters_for_the_drain_hear_of_a_rejected_task() {
    check("reject against drain", || {
        let runner = runner(Runner::builder());
        runner.owner().close();
        let queue = of_no_request(&runner);
        let adder = thread::spawn(move || add(&queue, Task::new(async {})));
        loom::future::block_on(runner.owner().shared.drained());
        adder.join().unwrap();
        assert_balanced(&runner);
    });
}

#[test]
fn no_more_than_the_limit_run_and_all_run() {
    check("admission", || {
        let (runner, witness) = (runner(Runner::builder().max_running(1)), Witness::new());
        let (other, task) = (of_no_request(&runner), witness.task(1));
        let adder = thread::spawn(move || add(&other, task));
        add(&of_no_request(&runner), witness.task(0));
        adder.join().unwrap();
        let mut ran = witness.ran();
        ran.sort_unstable();
        assert_eq!(ran, [0, 1]);
        assert_balanced(&runner);
    });
}

#[test]
fn no_more_than_the_limit_wait() {
    check("max_pending", || {
        let (runner, witness) = (runner(Runner::builder().max_pending(1)), Witness::new());
        let queue = of_response(&runner);
        // The task belongs to another request, so that the two may run side by side.
        let (other, task) = (of_response(&runner), Witness::new().task(1));
        let adder = thread::spawn(move || {
            add(&other, task);
            end(other);
        });
        add(&queue, witness.task(0));
        end(queue);
        adder.join().unwrap();
        let stats = runner.stats();
        assert!(stats.completed >= 1 && stats.completed + stats.rejected == 2);
        assert_balanced(&runner);
    });
}

#[test]
fn waiters_for_idle_are_woken() {
    check("idle", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_response(&runner);
        add(&queue, witness.task(0));
        let ender = thread::spawn(move || end(queue));
        loom::future::block_on(runner.owner().shared.drained());
        loom::future::block_on(runner.idle());
        assert_eq!(witness.ran(), [0]);
        ender.join().unwrap();
        assert_balanced(&runner);
    });
}

#[test]
fn settled_only_when_the_tasks_of_an_ended_response_ran() {
    check("settled against end", || {
        // One of loom's, so that it looks at a waiter that reads this before the task has run.
        let ran = Arc::new(AtomicUsize::new(0));
        let (runner, counts) = (runner(Runner::builder()), Arc::clone(&ran));
        let runs = async move { drop(counts.fetch_add(1, SeqCst)) };
        let queue = of_response(&runner);
        add(&queue, Task::new(runs));
        let waiter = runner.clone();
        let waiter = thread::spawn(move || {
            let is_settled = waiter.owner().shared.is_settled();
            assert!(!is_settled || ran.load(SeqCst) == 1);
        });
        end(queue);
        waiter.join().unwrap();
        assert!(runner.owner().shared.is_settled());
        assert_balanced(&runner);
    });
}

#[test]
fn adding_side_by_side_against_the_end() {
    check("concurrent: add against end", || {
        let (runner, witness) = (
            runner(Runner::builder().order(Order::Concurrent)),
            Witness::new(),
        );
        let queue = of_response(&runner);
        add(&queue, witness.task(0));
        let ended = Arc::clone(&queue);
        let ender = thread::spawn(move || end(ended));
        // The task has another witness, so that the two may run side by side.
        let beside = Witness::new();
        add(&queue, beside.task(1));
        ender.join().unwrap();
        assert_eq!((witness.ran(), beside.ran()), (vec![0], vec![1]));
        assert_balanced(&runner);
    });
}

#[test]
fn a_canceller_and_a_shutdown_tell_an_end_once() {
    check("cancel against shutdown", || {
        let runner = runner(Runner::builder());
        let queue = of_response(&runner);
        let id: TaskId = queue.add(Task::new(async {}), Location::caller()).unwrap();
        let other = runner.clone();
        let canceller = thread::spawn(move || other.cancel(id));
        let _ = runner.owner().abort_all(|_| false);
        let cancelled = canceller.join().unwrap();
        assert_eq!(aborted(&runner), usize::from(!cancelled));
        assert_eq!(runner.stats().aborted, 1);
        assert_balanced(&runner);
    });
}

#[test]
fn releasing_against_the_end_of_the_response() {
    check("release against end", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_response(&runner);
        let held = queue.held();
        add(&held, witness.task(0));
        let (into, other) = (Arc::clone(&queue), Arc::clone(&held));
        let releaser = thread::spawn(move || into.release(&other));
        let (ended, _kept) = (Arc::clone(&queue), queue);
        end(ended);
        releaser.join().unwrap();
        assert_eq!(witness.ran(), [0]);
        assert_balanced(&runner);
    });
}

#[test]
fn releasing_against_shutdown() {
    check("release against shutdown", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_no_request(&runner);
        let held = queue.held();
        add(&held, witness.task(0));
        let (into, other) = (Arc::clone(&queue), Arc::clone(&held));
        let releaser = thread::spawn(move || into.release(&other));
        runner.owner().close();
        let _ = runner.owner().abort_all(|_| false);
        releaser.join().unwrap();
        // It completed, or it was aborted and named: perhaps while it ran.
        let completed = runner.stats().completed as usize;
        assert_eq!(completed + aborted(&runner), 1);
        assert!(completed == 0 || witness.ran() == [0]);
        assert_balanced(&runner);
    });
}

/// The task waits, here or there. So it is found and listed once, wherever the release is.
#[test]
fn releasing_against_cancelling_and_listing() {
    check("release against cancel", || {
        let (runner, witness) = (runner(Runner::builder()), Witness::new());
        let queue = of_response(&runner);
        add(&queue, witness.task(1)); // both queues are registered
        let (outer, inner) = (queue.held(), queue.held());
        let id = inner.add(witness.task(0), Location::caller()).unwrap();
        let (into, from) = (Arc::clone(&outer), Arc::clone(&inner));
        let next = Arc::clone(&queue);
        let releaser = thread::spawn(move || {
            into.release(&from);
            next.release(&into);
        });
        assert_eq!(runner.tasks().len(), 2);
        assert!(runner.cancel(id));
        releaser.join().unwrap();
        end(queue);
        assert_eq!(witness.ran(), [1]);
        assert_balanced(&runner);
    });
}

#[test]
fn cancelling_against_parking() {
    check("cancel against park", || {
        let runner = runner_on(Runner::builder(), |executor| Box::new(Woken(executor)));
        let queue = of_response(&runner);
        let task = Task::new(std::future::pending::<()>());
        let id = queue.add(task, Location::caller()).unwrap();
        let other = runner.clone();
        let canceller = thread::spawn(move || other.cancel(id));
        end(queue);
        assert!(canceller.join().unwrap());
        assert_eq!(runner.stats().aborted, 1);
        assert_balanced(&runner);
    });
}
