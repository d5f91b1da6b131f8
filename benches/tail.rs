//! When do tasks begin late? How long tasks wait from when they may begin until they do, in three
//! bad moments, beside `tokio::spawn` and `spawn_blocking` in the same moments: the median, the
//! 99th percentile and the 99.9th.
//!
//!     cargo bench --bench tail
//!
//! Both sides take turns, round by round, on a runtime of their own with a worker for each core.
//! Each figure is the median over the rounds, and so is each ratio.

#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

use std::{
    hint::black_box,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{median, rounds};
use http::Response;
use tokio::{runtime::Builder, runtime::Runtime};
use tower_background_tasks::{BackgroundTasks, Runner};

/// A bad moment. Each begin is sent with the time that the task has waited.
#[derive(Clone, Copy)]
enum Moment {
    /// Every fiftieth async task holds its worker for 2 ms.
    Held,
    /// 100 blocking tasks of 20 ms each, and 8 threads.
    BusyPool,
    /// 10,000 async tasks may begin at once.
    Burst,
}

#[derive(Clone, Copy)]
enum Side {
    Ours,
    Tokio,
}

type Begins = mpsc::Sender<Duration>;

fn hold(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        black_box(begun);
    }
}

/// Has a response of ours end, whose one task this is.
fn respond(runner: &Runner, add: impl FnOnce(&BackgroundTasks)) {
    let tasks = BackgroundTasks::new();
    add(&tasks);
    drop(runner.attach(Response::new(String::new()), tasks));
}

impl Moment {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Held, "async tasks, 1 of 50 holds its worker for 2 ms"),
        (Self::BusyPool, "100 blocking tasks of 20 ms on 8 threads"),
        (Self::Burst, "10,000 async tasks at once"),
    ];

    fn tasks(self) -> usize {
        match self {
            Self::Held => 2_000,
            Self::BusyPool => 100,
            Self::Burst => 10_000,
        }
    }

    fn runtime(self) -> Runtime {
        let mut builder = Builder::new_multi_thread();
        builder.enable_time().max_blocking_threads(8);
        builder.build().unwrap()
    }

    /// Starts the tasks, as a server that gets so many requests would.
    async fn start(self, side: Side, runner: Runner, begins: Begins) {
        let burst = Instant::now();
        for number in 0..self.tasks() {
            let may_begin = match self {
                Self::Burst => burst, // making the tasks takes its time, too
                Self::Held | Self::BusyPool => Instant::now(),
            };
            let begins = begins.clone();
            let tell = move || begins.send(may_begin.elapsed()).unwrap();
            match self {
                Self::BusyPool => {
                    let work = move || {
                        tell();
                        thread::sleep(Duration::from_millis(20));
                    };
                    match side {
                        Side::Ours => respond(&runner, |tasks| tasks.add_blocking_task(work)),
                        Side::Tokio => drop(tokio::task::spawn_blocking(work)),
                    }
                }
                Self::Held | Self::Burst => {
                    let holds = matches!(self, Self::Held) && number % 50 == 0;
                    let work = async move {
                        tell();
                        if holds {
                            hold(Duration::from_millis(2));
                        }
                    };
                    match side {
                        Side::Ours => respond(&runner, |tasks| tasks.add_task(work)),
                        Side::Tokio => drop(tokio::spawn(work)),
                    }
                }
            }
            if matches!(self, Self::Held) && number % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await; // requests come one by one
            }
        }
    }

    /// Returns the percentiles of one round, in microseconds.
    fn measure(self, side: Side) -> [f64; 3] {
        let (runtime, runner) = (self.runtime(), Runner::new());
        let (begins, begun) = mpsc::channel();
        // On a worker, as connections are.
        let starting = runtime.spawn(self.start(side, runner.clone(), begins));
        runtime.block_on(starting).unwrap();
        let mut waited: Vec<_> = begun.iter().collect();
        assert_eq!(waited.len(), self.tasks());
        runtime.block_on(runner.idle());
        waited.sort_unstable();
        let at = |share: f64| waited[((waited.len() - 1) as f64 * share) as usize];
        [0.5, 0.99, 0.999].map(|share| at(share).as_secs_f64() * 1e6)
    }
}

fn main() {
    println!("from when a task may begin until it does, in us");
    println!("{:<48} {:>10} {:>10} {:>7}", "", "ours", "tokio", "ratio");
    for (moment, name) in Moment::ALL {
        let rounds = rounds(21);
        let mut pairs = Vec::new();
        for round in 0..rounds {
            let mut sides = [Side::Ours, Side::Tokio];
            sides.rotate_left(round % 2);
            let mut figures = sides.map(|side| moment.measure(side));
            figures.rotate_left(round % 2);
            pairs.push(figures);
        }
        for (place, percentile) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
            let of = |figure: fn(f64, f64) -> f64| {
                let both = pairs
                    .iter()
                    .map(|[ours, tokio]| (ours[place], tokio[place]));
                median(both.map(|(ours, tokio)| figure(ours, tokio)).collect())
            };
            let (ours, tokio) = (of(|ours, _| ours), of(|_, tokio| tokio));
            let ratio = of(|ours, tokio| ours / tokio);
            let label = format!("{name}, {percentile}");
            println!("{label:<54} {ours:>9.0} {tokio:>10.0} {ratio:>7.2}");
        }
    }
}
