//! The metrics add up to the stats, whatever becomes of the tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
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
use tower_background_tasks::{BackgroundTasks, Runner, Task, TaskState};

use crate::support::{full, get, open_response, respond, until};

/// Sums, by a metric's name and its label `end`.
#[derive(Default)]
struct Sums {
    sums: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    /// The whole keys, as `name{label=value,…}`.
    keys: Mutex<BTreeSet<String>>,
}

impl Sums {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels();
        let labels: Vec<_> = labels
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let whole = format!("{}{{{}}}", key.name(), labels.join(","));
        self.keys.lock().unwrap().insert(whole);
        let end = key.labels().find(|label| label.key() == "end");
        let name = format!("{} {}", key.name(), end.map_or("", |label| label.value()));
        self.sums.lock().unwrap().entry(name).or_default().clone()
    }

    fn count(&self, name: &str) -> u64 {
        let sums = self.sums.lock().unwrap();
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

/// Calls `f` within a runtime, while `recorder` is this thread's.
fn recorded<F: Future>(recorder: &impl Recorder, f: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(recorder, || runtime.block_on(f()))
}

#[test]
fn every_end_of_a_task_is_counted_from_its_first_count() {
    let sums = Sums::default();
    recorded(&sums, || async {
        let runner = Runner::builder()
            .route(|request| Some(request.uri.path().split_at(7).0))
            .build();
        let respond = |path| {
            respond(&runner, get(path), |tasks| {
                tasks.add_task(Task::new(async {}).named("mail"));
                tasks.add_task(Task::new(async {}).named(String::from("mail of ferris")));
                full("hello")
            })
        };
        drop(respond("/orders/1").await);
        drop(respond("/orders/2").await);
        runner.add_task(Task::new(async {}).named("mail"));
        runner.idle().await;
    });
    let keys = sums.keys.lock().unwrap();
    let ends = ["completed", "failed", "panicked", "timed_out", "skipped"];
    for end in ends.iter().chain(&["rejected", "aborted"]) {
        for series in [
            "task=mail",
            "task=mail,route=/orders",
            "task=(dynamic),route=/orders",
        ] {
            let key = format!("background_tasks_ended_total{{{series},end={end}}}");
            assert!(keys.contains(&key), "{key} of {keys:#?}");
        }
    }
    let ended = keys.iter().filter(|key| key.contains("_ended_total{"));
    let words = if cfg!(feature = "jobs") { 8 } else { 7 };
    assert_eq!(ended.count(), 3 * words, "{keys:#?}");
    drop(keys);
    assert_eq!(sums.count("background_tasks_ended_total completed"), 5);
    assert_eq!(sums.count("background_tasks_ended_total failed"), 0);
}

#[test]
fn gauges_are_recorded_when_they_are_asked_for() {
    let sums = Sums::default();
    recorded(&sums, || async {
        let runner = Runner::builder()
            .max_running(1)
            .max_awaiting_response(7)
            .build();
        let (response, tasks) = open_response(&runner);
        tasks.add_task(async {});
        let (release, held) = std::sync::mpsc::channel::<()>();
        let overdue = Task::blocking(move || held.recv().unwrap_or_default());
        runner.add_task(overdue.timeout(Duration::from_millis(1)));
        let is_overdue = || {
            let tasks = runner.tasks();
            tasks.iter().any(|task| task.state() == TaskState::Overdue)
        };
        until(is_overdue).await;
        runner.record_gauges();
        assert_eq!(sums.level("background_tasks_awaiting_response "), 1.0);
        assert_eq!(sums.level("background_tasks_overdue "), 1.0);
        let used: Vec<_> = runner.limits().iter().map(|limit| limit.used).collect();
        assert_eq!(used, [1, 1], "one awaits, and the thread keeps its place");
        drop((response, release));
        runner.idle().await;
        until(|| runner.tasks().is_empty()).await;
        runner.record_gauges();
        assert_eq!(sums.level("background_tasks_awaiting_response "), 0.0);
        assert_eq!(sums.level("background_tasks_overdue "), 0.0);
        assert_eq!(
            runner
                .limits()
                .iter()
                .map(|limit| limit.used)
                .sum::<usize>(),
            0
        );
    });
    let keys = sums.keys.lock().unwrap();
    for limit in ["max_running", "max_awaiting_response"] {
        for gauge in ["background_tasks_limit", "background_tasks_limit_used"] {
            assert!(
                keys.contains(&format!("{gauge}{{limit={limit}}}")),
                "{keys:#?}"
            );
        }
    }
}

#[test]
fn slow_polls_are_counted() {
    let sums = Sums::default();
    recorded(&sums, || async {
        let runner = Runner::builder()
            .warn_slow_poll(Duration::from_millis(1))
            .build();
        runner.add_task(async { std::thread::sleep(Duration::from_millis(2)) });
        runner.add_task(async {});
        runner.idle().await;
    });
    assert_eq!(sums.count("background_tasks_slow_polls_total "), 1);
}

#[cfg(feature = "jobs")]
#[test]
fn each_attempt_of_a_stored_job_is_counted_once() {
    use crate::{
        job_support::{note, notes},
        support::Log,
    };
    use tower_background_tasks::StoredJob;

    let sums = Sums::default();
    recorded(&sums, || async {
        let jobs = notes(&Log::default());
        let of = |text: &str| StoredJob::new(&note(text)).unwrap();
        let with = |name: &str| {
            let json = r#"{"id": "0FHYPNQPEB8TFT2SBGGSVJH58E", "name": "NAME", "payload": 1}"#;
            serde_json::from_str(&json.replace("NAME", name)).unwrap()
        };
        for stored in [
            of("done"),
            of("fail"),
            of("panic"),
            with("other"),
            with("note"),
        ] {
            let _ = jobs.run(stored).await;
        }
        let unfinished = jobs.run(of("waits"));
        let _ = tokio::time::timeout(Duration::ZERO, unfinished).await;
    });
    for (end, count) in [
        ("completed", 1),
        ("failed", 1),
        ("panicked", 1),
        ("unreadable", 2),
        ("aborted", 1),
    ] {
        let name = format!("background_jobs_ended_total {end}");
        assert_eq!(sums.count(&name), count, "{end}");
    }
}
