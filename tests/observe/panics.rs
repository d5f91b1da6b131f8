//! A subscriber is code of the user's: its panics are contained wherever a task meets it.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};
use tower_background_tasks::{BackgroundTasks, Runner, RunnerBuilder, Stats, Task};
use tracing::{Dispatch, Event, Metadata, Subscriber, dispatcher::with_default, info_span, span};
use tracing_core::span::Current;
use tracing_subscriber::Registry;

use crate::{attach, respond, soon::soon};

/// A method of [`Subscriber`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Method {
    NewSpan,
    CloneSpan,
    Enter,
    Exit,
    TryClose,
    Event,
    Record,
    RecordFollowsFrom,
}

const METHODS: [Method; 8] = [
    Method::NewSpan,
    Method::CloneSpan,
    Method::Enter,
    Method::Exit,
    Method::TryClose,
    Method::Event,
    Method::Record,
    Method::RecordFollowsFrom,
];

/// Panics in one method, while it is armed: when that has done its work, so that the registry stays fit for the rest.
struct Panicking {
    registry: Registry,
    method: Method,
    is_armed: AtomicBool,
    panics: AtomicUsize,
}

impl Panicking {
    fn in_method(method: Method) -> Arc<Self> {
        Arc::new(Self {
            registry: Registry::default(),
            method,
            is_armed: AtomicBool::new(false),
            panics: AtomicUsize::new(0),
        })
    }

    fn arm(&self, is_armed: bool) {
        self.is_armed.store(is_armed, Ordering::SeqCst);
    }

    fn panics(&self) -> usize {
        self.panics.load(Ordering::SeqCst)
    }

    fn called(&self, method: Method) {
        if method == self.method && self.is_armed.load(Ordering::SeqCst) {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose: {method:?} of a subscriber");
        }
    }
}

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.registry.enabled(metadata)
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let answer = self.registry.new_span(attributes);
        self.called(Method::NewSpan);
        answer
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        self.registry.record(id, values);
        self.called(Method::Record);
    }

    fn record_follows_from(&self, id: &span::Id, follows: &span::Id) {
        self.registry.record_follows_from(id, follows);
        self.called(Method::RecordFollowsFrom);
    }

    fn event(&self, event: &Event<'_>) {
        self.registry.event(event);
        self.called(Method::Event);
    }

    fn enter(&self, id: &span::Id) {
        self.registry.enter(id);
        self.called(Method::Enter);
    }

    fn exit(&self, id: &span::Id) {
        self.registry.exit(id);
        self.called(Method::Exit);
    }

    fn clone_span(&self, id: &span::Id) -> span::Id {
        let answer = self.registry.clone_span(id);
        self.called(Method::CloneSpan);
        answer
    }

    fn try_close(&self, id: span::Id) -> bool {
        let answer = self.registry.try_close(id);
        self.called(Method::TryClose);
        answer
    }

    fn current_span(&self) -> Current {
        self.registry.current_span()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A request's tasks, each with another end, added in a span and run while `subscriber` panics.
fn run_under(subscriber: &Arc<Panicking>, builder: RunnerBuilder) -> Stats {
    let runner = builder.build();
    with_default(&Dispatch::new(subscriber.clone()), || {
        let cause = info_span!("cause");
        let tasks = BackgroundTasks::new();
        cause.in_scope(|| {
            subscriber.arm(true);
            tasks.add_task(yield_now());
            tasks.add_task(async { Err::<(), _>("on purpose") });
            tasks.add_task(async { panic!("on purpose") });
            tasks.add_blocking_task(|| ());
            tasks.add_task(async {});
            subscriber.arm(false); // the span that is left here is the test's own
        });
        subscriber.arm(true);
        runtime().block_on(async {
            respond(&runner, tasks);
            soon(runner.idle()).await;
        });
        subscriber.arm(false);
    });
    runner.stats()
}

#[test]
fn subscriber_that_panics_harms_no_task_and_loses_no_end() {
    for method in METHODS {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let observed =
            Runner::builder().on_task_end(move |report| tell.lock().unwrap().push(report.id()));
        for builder in [Runner::builder(), observed] {
            let subscriber = Panicking::in_method(method);
            let stats = run_under(&subscriber, builder);
            assert!(subscriber.panics() > 0, "{method:?} was not called");
            assert_eq!((stats.added, stats.completed), (5, 3), "{method:?}");
            assert_eq!((stats.failed, stats.panicked), (1, 1), "{method:?}");
            assert_eq!((stats.pending, stats.running), (0, 0), "{method:?}");
        }
        let mut told = told.lock().unwrap().clone();
        told.sort();
        told.dedup();
        assert_eq!(told.len(), 5, "{method:?}");
    }
}

/// One task is cancelled and another aborted by a shutdown, while `subscriber` panics: from the start, or since they run.
fn cut_off_under(subscriber: &Arc<Panicking>, from_the_start: bool) -> Stats {
    let runner = Runner::new();
    let both = async {
        subscriber.arm(from_the_start);
        let cancelled = runner.try_add_task(pending::<()>()).unwrap();
        runner.add_task(Task::new(pending::<()>()).named("stuck"));
        while runner.stats().running < 2 {
            yield_now().await;
        }
        subscriber.arm(true);
        assert!(runner.cancel(cancelled));
        let report = runner.shutdown(Duration::ZERO).await;
        assert_eq!(report.unfinished()[0].name(), "stuck");
        runner.idle().await;
        subscriber.arm(false);
    };
    with_default(&Dispatch::new(subscriber.clone()), || {
        runtime().block_on(async { soon(both).await });
    });
    runner.stats()
}

#[test]
fn cancel_and_shutdown_survive_a_subscriber_that_panics() {
    for method in METHODS {
        for from_the_start in [true, false] {
            let subscriber = Panicking::in_method(method);
            let stats = cut_off_under(&subscriber, from_the_start);
            assert_eq!((stats.added, stats.aborted), (2, 2), "{method:?}");
            // There is no span to follow from, and a span has one handle.
            let never_called = [Method::RecordFollowsFrom, Method::CloneSpan];
            let is_called = from_the_start && !never_called.contains(&method);
            assert!(subscriber.panics() > 0 || !is_called, "{method:?}");
        }
    }
}

#[test]
fn idle_survives_a_subscriber_that_panics_at_its_warning() {
    let subscriber = Panicking::in_method(Method::Event);
    subscriber.arm(true);
    let (runner, tasks) = (Runner::new(), BackgroundTasks::new());
    tasks.add_task(async {});
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let idle = with_default(&Dispatch::new(subscriber.clone()), || {
        runtime.unwrap().block_on(async {
            let _response = attach(&runner, tasks);
            let idle = runner.idle().await;
            subscriber.arm(false);
            idle
        })
    });
    assert_eq!((idle.waiting().len(), subscriber.panics()), (1, 1));
}

#[cfg(feature = "jobs")]
mod jobs {
    use serde::{Deserialize, Serialize};
    use tokio::time::timeout;
    use tower_background_tasks::{Job, JobContext, Jobs, StoredJob, TaskResult};

    use super::*;

    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    enum Ends {
        Completed,
        Failed,
        Aborted,
    }

    impl Job for Ends {
        const NAME: &'static str = "ends";
        type State = ();

        async fn run(self, (): (), _: JobContext) -> TaskResult {
            match self {
                Self::Completed => Ok(()),
                Self::Failed => Err("on purpose".into()),
                Self::Aborted => pending().await,
            }
        }
    }

    /// Returns how often the observer was told.
    fn run_under(subscriber: &Arc<Panicking>, job: Ends) -> usize {
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let dispatch = Dispatch::new(subscriber.clone());
        with_default(&dispatch, || {
            let jobs = Jobs::new(()).register::<Ends>().on_job_end(move |_| {
                seen.fetch_add(1, Ordering::SeqCst);
            });
            let stored = StoredJob::new(&job).unwrap();
            subscriber.arm(true);
            runtime().block_on(async {
                let _ = timeout(Duration::from_millis(1), jobs.run(stored)).await;
            });
            subscriber.arm(false);
        });
        told.load(Ordering::SeqCst)
    }

    #[test]
    fn a_subscriber_that_panics_harms_no_job_and_its_end_is_told_once() {
        for method in METHODS {
            for job in [Ends::Completed, Ends::Failed, Ends::Aborted] {
                let told = run_under(&Panicking::in_method(method), job);
                assert_eq!(told, 1, "{job:?}, {method:?}");
            }
        }
    }
}
