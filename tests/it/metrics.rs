//! The metrics add up to the stats, whatever becomes of the tasks.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::response::IntoResponse;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tower_background_tasks::{BackgroundTasks, Runner, Task};

use crate::support::{full, get, respond};

/// Sums, by a metric's name and its label `end`.
#[derive(Default)]
struct Sums(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Sums {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let end = key.labels().find(|label| label.key() == "end");
        let name = format!("{} {}", key.name(), end.map_or("", |label| label.value()));
        self.0.lock().unwrap().entry(name).or_default().clone()
    }

    fn count(&self, name: &str) -> u64 {
        let sums = self.0.lock().unwrap();
        sums.get(name).map_or(0, |sum| sum.load(Ordering::SeqCst))
    }

    /// A gauge's value.
    fn level(&self, name: &str) -> f64 {
        f64::from_bits(self.count(name))
    }
}

/// Counts samples.
struct Samples(Arc<AtomicU64>);

impl HistogramFn for Samples {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Samples(self.of(key))))
    }
}

/// One task or more for each end, merged queues and a run by hand among them.
async fn all_kinds(runner: &Runner) {
    let response = respond(runner, get("/"), |tasks| {
        tasks.add_task(async {});
        tasks.add_task(async { Err::<(), _>("on purpose") });
        tasks.add_task(async { panic!("on purpose") });
        tasks.add_task(Task::new(async {}).run_if(|_| false));
        tasks.add_task(Task::new(pending::<()>()).timeout(Duration::from_millis(1)));
        let (first, second) = (BackgroundTasks::new(), BackgroundTasks::new());
        first.add_task(async {});
        second.add_task(async {});
        (first, second, "hello").into_response()
    })
    .await;
    drop(response);
    runner.idle().await;
    let by_hand = BackgroundTasks::new();
    let response = runner.attach(full("hello"), by_hand.clone());
    by_hand.add_task(async {});
    assert_eq!(by_hand.run().await.len(), 1);
    drop(response);
    let cancelled = runner.try_add_task(pending::<()>()).unwrap();
    assert!(runner.cancel(cancelled));
    for _ in 0..20 {
        runner.add_task(pending::<()>());
    }
    let alone = BackgroundTasks::new();
    alone.add_task(async {});
    assert_eq!(alone.run().await.len(), 1);
    drop(runner.shutdown(Duration::from_millis(1)).await);
    runner.idle().await;
}

/// Panics when it is told what the metrics of one kind mean.
struct PanicsAt(&'static str);

impl PanicsAt {
    fn described(&self, kind: &str) {
        assert!(self.0 != kind, "on purpose: a recorder told of a {kind}");
    }
}

impl Recorder for PanicsAt {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.described("counter");
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.described("gauge");
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.described("histogram");
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn runner_is_built_though_the_recorder_panics_at_a_description() {
    for kind in ["counter", "gauge", "histogram"] {
        let runner = metrics::with_local_recorder(&PanicsAt(kind), Runner::new);
        runner.add_task(async {});
        runner.idle().await;
        assert_eq!(runner.stats().completed, 1, "{kind}");
    }
}

#[test]
fn the_metrics_add_up_to_the_stats() {
    let sums = Sums::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stats = metrics::with_local_recorder(&sums, || {
        let runner = Runner::builder().max_pending(10).build();
        runtime.block_on(all_kinds(&runner));
        runner.stats()
    });
    assert_eq!(sums.count("background_tasks_added_total "), stats.added);
    let ends = [
        ("completed", stats.completed),
        ("failed", stats.failed),
        ("panicked", stats.panicked),
        ("timed_out", stats.timed_out),
        ("skipped", stats.skipped),
        ("rejected", stats.rejected),
        ("aborted", stats.aborted),
    ];
    for (end, count) in ends {
        assert!(count > 0, "none {end}");
        assert_eq!(
            sums.count(&format!("background_tasks_ended_total {end}")),
            count,
            "{end}"
        );
    }
    assert_eq!(sums.level("background_tasks_pending "), 0.0);
    assert_eq!(sums.level("background_tasks_running "), 0.0);
    assert!(sums.count("background_tasks_waiting_seconds ") < stats.added);
}
