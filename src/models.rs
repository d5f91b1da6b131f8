//! loom's models of what races: each checks all interleavings (with up to three preemptions) of the real queue, registry,
//! admission and counters. Batches run on the thread that starts them.

use std::{
    future::poll_fn,
    panic::Location,
    pin::pin,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicUsize as StdAtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use loom::{
    future::block_on,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use crate::{
    ResponseEnd, Runner, Task,
    executor::crew::{Crew, Found},
    executor::lanes::{Given, Lane, Lanes},
    outcome::Verdict,
    queue::Queue,
    util::sync::now,
};

/// Runs a batch here and now.
pub(crate) fn run(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    while future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
    {}
}

/// Checks `model` in all interleavings, and prints how many there were.
fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(StdAtomicUsize::new(0));
    let count = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        // Where an execution cannot be played again, there is no end to them.
        assert!(count.fetch_add(1, Relaxed) < 1_000_000, "too many");
        model();
    });
    println!("loom: {name}: {} executions", executions.load(Relaxed));
}

/// What is made after this is younger than what was made before. A merge locks by age, and where two are of one age by address, which
/// is not the same in each execution.
fn time_passes() {
    let before = Instant::now();
    while Instant::now() == before {}
}

/// What the tasks of a model did.
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

    /// A task that checks that it runs alone, and notes that it ran.
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

fn verdict() -> Verdict {
    Verdict {
        end: ResponseEnd::Completed,
        status: Some(http::StatusCode::OK),
        body_bytes: 0,
    }
}

fn add(queue: &Arc<Queue>, task: Task) {
    queue.add_or_reject(task, Location::caller());
}

fn assert_balanced(runner: &Runner) {
    let stats = runner.stats();
    let ended = stats.completed + stats.rejected + stats.aborted;
    assert_eq!(stats.added, ended);
    assert_eq!((stats.pending, stats.running), (0, 0));
    assert!(runner.tasks().is_empty());
}

#[test]
fn adding_against_the_end_of_the_response() {
    check("add against end", || {
        let (runner, witness) = (Runner::new(), Witness::new());
        let queue = Queue::of_response(runner.clone());
        add(&queue, witness.task(0));
        let (ended, adding) = (Arc::clone(&queue), witness.clone());
        let end = thread::spawn(move || ended.end(verdict()));
        add(&queue, adding.task(1));
        end.join().unwrap();
        assert_eq!(witness.ran(), [0, 1]);
        assert_balanced(&runner);
    });
}

#[test]
fn adding_against_the_last_tasks_end() {
    check("add against the last task's end", || {
        let (runner, witness) = (Runner::new(), Witness::new());
        let queue = Queue::of_no_request(runner.clone());
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
        let (runner, witness) = (Runner::new(), Witness::new());
        let queue = Queue::of_response(runner.clone());
        let (other, first, second) = (Arc::clone(&queue), witness.task(0), witness.task(1));
        let adder = thread::spawn(move || {
            add(&other, first);
            add(&other, second);
        });
        runner.registry().close();
        let rows = runner.abort_all();
        adder.join().unwrap();
        // What came in before is aborted and named; what came later, refused.
        let stats = runner.stats();
        assert_eq!((stats.added, stats.aborted), (2, rows.len() as u64));
        assert!(witness.ran().is_empty());
        assert_balanced(&runner);
        queue.end(verdict());
        assert_balanced(&runner);
    });
}

#[test]
fn cancelling_against_the_fast_path() {
    check("cancel against the fast path", || {
        let (runner, witness) = (Runner::new(), Witness::new());
        let queue = Queue::of_response(runner.clone());
        let id = queue.add(witness.task(0), Location::caller()).unwrap();
        add(&queue, witness.task(1));
        let other = runner.clone();
        let canceller = thread::spawn(move || other.cancel(id));
        queue.end(verdict());
        let cancelled = canceller.join().unwrap();
        assert_eq!(witness.ran().last(), Some(&1));
        assert_eq!(runner.stats().aborted, u64::from(cancelled));
        assert_balanced(&runner);
    });
}

#[test]
fn two_shutdowns_tell_the_same() {
    check("two shutdowns", || {
        let runner = Runner::new();
        let queue = Queue::of_response(runner.clone());
        add(&queue, Task::new(async {}));
        let other = runner.clone();
        let shutdown = thread::spawn(move || {
            other.registry().close();
            other.abort_all().len()
        });
        // The other call waits until all has ended, and finds nothing left to abort.
        loom::future::block_on(runner.drained());
        runner.registry().close();
        assert_eq!(runner.abort_all().len(), 1);
        assert_eq!(shutdown.join().unwrap(), 1);
        assert_balanced(&runner);
    });
}

#[test]
fn a_newcomer_does_not_pass_those_who_wait() {
    check("first come, first served", || {
        let (runner, witness) = (Runner::builder().max_running(1).build(), Witness::new());
        let (other, third) = (runner.clone(), witness.task(2));
        // The first task adds the second, which waits behind it; another thread adds a third at any moment.
        let (nested, inner, second) = (runner.clone(), witness.clone(), witness.task(1));
        let first = Task::new(async move {
            add(&Queue::of_no_request(nested), second);
            inner.ran.lock().unwrap().push(0);
        });
        let adder = thread::spawn(move || add(&Queue::of_no_request(other), third));
        add(&Queue::of_no_request(runner.clone()), first);
        adder.join().unwrap();
        let ran = witness.ran();
        let place = |task| ran.iter().position(|ran| *ran == task).unwrap();
        assert!(ran.len() == 3 && place(0) < place(1));
        assert_balanced(&runner);
    });
}

#[test]
fn two_ends_at_once() {
    check("two ends at once", || {
        let (runner, witness) = (Runner::new(), Witness::new());
        let queue = Queue::of_response(runner.clone());
        add(&queue, witness.task(0));
        let (other, _kept) = (Arc::clone(&queue), Arc::clone(&queue));
        let end = thread::spawn(move || other.end(verdict()));
        queue.end(verdict());
        end.join().unwrap();
        assert_eq!(witness.ran(), [0]);
        assert_balanced(&runner);
    });
}

#[test]
fn merging_against_adding() {
    check("merge against add", || {
        let (runner, witness) = (Runner::new(), Witness::new());
        let queue = Queue::of_response(runner.clone());
        time_passes();
        let alone = Queue::stand_alone();
        add(&alone, witness.task(0));
        let (other, task) = (Arc::clone(&alone), witness.task(1));
        let adder = thread::spawn(move || add(&other, task));
        queue.merge(&alone);
        queue.end(verdict());
        adder.join().unwrap();
        assert_eq!(witness.ran(), [0, 1]);
        assert_balanced(&runner);
    });
}

#[test]
fn two_merges_of_the_same_pair() {
    check("two merges of the same pair", || {
        let one = Queue::stand_alone();
        time_passes();
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

/// Drives what there is, on a lane that is dropped then. Gives the sum of it.
fn drive_now(mut lane: Lane<usize>) -> usize {
    let mut sum = 0;
    while let Poll::Ready(Some(next)) = lane.poll_next(&mut Context::from_waker(Waker::noop())) {
        let another = next.send.then(|| lane.another());
        sum += next.work + another.map_or(0, drive_now);
    }
    sum
}

#[test]
fn what_lanes_are_given_is_driven_once() {
    check("give, wait, park and close", || {
        let lanes = Arc::new(Lanes::default());
        let Given::Back(first, mut lane) = lanes.give(1) else {
            panic!("there is no lane yet");
        };
        let lane = thread::spawn(move || {
            block_on(async move {
                let mut sum = first;
                lane.set_aside(); // the first is pending for a while
                while let Some(next) = poll_fn(|cx| lane.poll_next(cx)).await {
                    let another = next.send.then(|| lane.another());
                    sum += next.work + another.map_or(0, drive_now);
                }
                sum
            })
        });
        let driven_here: usize = [2, 4]
            .into_iter()
            .map(|work| match lanes.give(work) {
                Given::Taken => 0,
                Given::Back(work, lane) => work + drive_now(lane),
                Given::Further(lane) => drive_now(lane),
            })
            .sum();
        lanes.close();
        assert_eq!(lane.join().unwrap() + driven_here, 7);
    });
}

#[test]
fn what_waits_for_a_lane_that_never_comes_is_dropped() {
    check("give and lose a lane", || {
        let lanes = Arc::new(Lanes::default());
        let work = Arc::new(());
        let Given::Back(_, lane) = lanes.give(Arc::clone(&work)) else {
            panic!("there is no lane yet");
        };
        let (giving, given) = (Arc::clone(&lanes), Arc::clone(&work));
        let giver = thread::spawn(move || drop(giving.give(given))); // with it, whatever lane it would set going
        drop(lane);
        giver.join().unwrap();
        assert_eq!(Arc::strong_count(&work), 1);
    });
}

const SECOND: Duration = Duration::from_secs(1);

/// What a blocking thread does that was sent for.
fn serve(crew: &Crew<usize>, done: &AtomicUsize) {
    serve_on(crew, done, crew.arrive(now()));
}

fn serve_on(crew: &Crew<usize>, done: &AtomicUsize, mut found: Found<usize>) {
    loop {
        for _ in 0..found.send {
            serve(crew, done);
        }
        let Some(work) = found.work else { return };
        done.fetch_add(work, SeqCst);
        found = crew.next(now());
    }
}

#[test]
fn whatever_waits_for_a_blocking_thread_is_done_once() {
    check("put, arrive and pass by", || {
        let (crew, done) = (Arc::new(Crew::default()), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = [1, 10]
            .into_iter()
            .map(|work| {
                let (crew, done) = (Arc::clone(&crew), Arc::clone(&done));
                thread::spawn(move || {
                    if crew.put(work) {
                        serve(&crew, &done);
                    }
                })
            })
            .collect();
        if crew.put(100) {
            serve(&crew, &done);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(done.load(SeqCst), 111);
    });
}

#[test]
fn whatever_waits_for_a_slow_thread_is_done_once() {
    check("put, arrive late and pass by late", || {
        let (crew, done) = (Arc::new(Crew::default()), Arc::new(AtomicUsize::new(0)));
        assert!(crew.put(1) && !crew.put(10));
        let (of_thread, by_thread) = (Arc::clone(&crew), Arc::clone(&done));
        let late = thread::spawn(move || {
            let found = of_thread.arrive(now() - SECOND); // very slow: it sends for many
            serve_on(&of_thread, &by_thread, found);
        });
        if crew.put(100) {
            serve(&crew, &done);
        }
        let found = crew.next(now() + SECOND); // whoever is on its way by now is slow
        serve_on(&crew, &done, found);
        late.join().unwrap();
        assert_eq!(done.load(SeqCst), 111);
        assert!(crew.put(1000), "somebody still counts as coming");
    });
}

#[test]
fn whatever_waits_for_a_thread_that_never_comes_is_given_back() {
    check("arrive and miss", || {
        let (crew, done) = (Arc::new(Crew::default()), Arc::new(AtomicUsize::new(0)));
        assert!(crew.put(1));
        let (of_thread, by_thread) = (Arc::clone(&crew), Arc::clone(&done));
        let thread = thread::spawn(move || {
            // Another request's work, and a thread that is there and passes by.
            if of_thread.put(10) {
                serve(&of_thread, &by_thread);
            } else if let Some(work) = of_thread.next(now()).work {
                by_thread.fetch_add(work, SeqCst);
            }
        });
        let given_back: usize = crew.miss().into_iter().sum();
        thread.join().unwrap();
        let left: usize = crew.next(now()).work.unwrap_or(0);
        assert_eq!(done.load(SeqCst) + given_back + left, 11);
    });
}

#[test]
fn no_more_than_the_limit_run_and_nobody_is_left_waiting() {
    check("admission", || {
        let (runner, witness) = (Runner::builder().max_running(1).build(), Witness::new());
        let (other, task) = (Queue::of_no_request(runner.clone()), witness.task(1));
        let adder = thread::spawn(move || add(&other, task));
        add(&Queue::of_no_request(runner.clone()), witness.task(0));
        adder.join().unwrap();
        let mut ran = witness.ran();
        ran.sort_unstable();
        assert_eq!(ran, [0, 1]);
        assert_balanced(&runner);
    });
}

/// The place goes from one to the next, whichever thread has it.
#[test]
fn three_share_one_place() {
    check("admission of three", || {
        let (runner, witness) = (Runner::builder().max_running(1).build(), Witness::new());
        let adders = [1, 2].map(|number| {
            let (queue, task) = (Queue::of_no_request(runner.clone()), witness.task(number));
            thread::spawn(move || add(&queue, task))
        });
        add(&Queue::of_no_request(runner.clone()), witness.task(0));
        for adder in adders {
            adder.join().unwrap();
        }
        let mut ran = witness.ran();
        ran.sort_unstable();
        assert_eq!(ran, [0, 1, 2]);
        assert_balanced(&runner);
    });
}

#[test]
fn no_more_than_the_limit_wait() {
    check("max_pending", || {
        let (runner, witness) = (Runner::builder().max_pending(1).build(), Witness::new());
        let queue = Queue::of_response(runner.clone());
        // Of another request, so that the two may run side by side.
        let (other, task) = (Queue::of_response(runner.clone()), Witness::new().task(1));
        let adder = thread::spawn(move || {
            add(&other, task);
            other.end(verdict());
        });
        add(&queue, witness.task(0));
        queue.end(verdict());
        adder.join().unwrap();
        let stats = runner.stats();
        assert!(stats.completed >= 1 && stats.completed + stats.rejected == 2);
        assert_balanced(&runner);
    });
}

#[test]
fn whoever_waits_for_idle_is_woken() {
    check("idle", || {
        let (runner, witness) = (Runner::new(), Witness::new());
        let queue = Queue::of_response(runner.clone());
        add(&queue, witness.task(0));
        let ender = thread::spawn(move || queue.end(verdict()));
        loom::future::block_on(runner.drained());
        loom::future::block_on(runner.idle());
        assert_eq!(witness.ran(), [0]);
        ender.join().unwrap();
        assert_balanced(&runner);
    });
}
