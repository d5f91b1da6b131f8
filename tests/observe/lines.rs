//! What a user's input can do to a log: nothing.

use std::{
    convert::Infallible,
    future::pending,
    io::{self, Write},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, service_fn};
use tower_background_tasks::{BackgroundTasks, Runner, Task};
use tracing::subscriber::{DefaultGuard, set_default};

use crate::{attach, respond};

/// Line breaks, escape sequences (also in one byte), text that runs from right to left.
const FORGED: &str = "mail\nERROR forged: added at src/forged.rs:1:1\r\u{1b}[31m\u{9b}31m\u{85}\u{2028}\u{2029}\u{202e}\u{2066}";

const UNSAFE: [char; 9] = [
    '\r', '\u{1b}', '\u{9b}', '\u{85}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{200f}',
];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Writes this thread's events here, while the guard lives.
    fn subscribe(&self) -> DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        set_default(subscriber.finish())
    }
}

#[tokio::test(start_paused = true)]
async fn forged_name_stays_on_the_line_of_idle() {
    let log = Log::default();
    let _scope = log.subscribe();
    let (runner, tasks) = (Runner::new(), BackgroundTasks::new());
    tasks.add_task(Task::new(async {}).named(FORGED.to_owned()));
    let _response = attach(&runner, tasks);
    let idle = runner.idle().await.to_string();
    for text in [log.text(), idle] {
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains(UNSAFE), "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_of_one_kind_are_summed_up() {
    let log = Log::default();
    let _scope = log.subscribe();
    let runner = Runner::new();
    let add = |name| runner.add_task(Task::new(async { Err::<(), _>("no disk") }).named(name));
    for _ in 0..1_000 {
        add("write");
    }
    add("read");
    runner.idle().await;
    let told = |text: &str| log.text().matches(text).count();
    assert_eq!(told("background task failed"), 2, "the first of each name");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!((told("failed again"), told("repeats=999")), (1, 1));
    add("write");
    runner.idle().await;
    assert_eq!(told("background task failed"), 2, "it is counted again");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!((told("failed again"), told("repeats=1\n")), (2, 1));
    tokio::time::sleep(Duration::from_secs(30)).await;
    add("write");
    add("write");
    runner.idle().await;
    assert_eq!(
        told("background task failed"),
        3,
        "after a while without any"
    );
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
    assert_eq!((told("failed again"), told("repeats=1\n")), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn different_errors_are_told_up_to_a_limit() {
    let log = Log::default();
    let _scope = log.subscribe();
    let runner = Runner::new();
    for number in 0..1_000 {
        runner.add_task(async move { Err::<(), _>(format!("order {number} is refused")) });
    }
    runner.idle().await;
    let told = |text: &str| log.text().matches(text).count();
    assert_eq!(told("background task failed"), 257);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!((told("failed again"), told("repeats=743")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn errors_that_differ_beyond_what_is_looked_at_are_of_one_kind() {
    let log = Log::default();
    let _scope = log.subscribe();
    let runner = Runner::new();
    for number in 0..10 {
        let error = format!("{}{number}", "x".repeat(1_024));
        runner.add_task(async move { Err::<(), _>(error) });
    }
    runner.idle().await;
    assert_eq!(log.text().matches("background task failed").count(), 1);
}

/// Over real time, on all threads at once.
#[test]
fn failures_on_many_threads_are_summed_up_in_one_line() {
    let log = Log::default();
    let every = Duration::from_millis(200);
    // All but the first are refused, each on the thread that adds it.
    let builder = Runner::builder().max_pending(1);
    let runner = builder.log_repeats_every(every).build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (_scope, _runtime) = (log.subscribe(), handle.enter());
                for _ in 0..100 {
                    runner.add_task(Task::new(async {}).named("write"));
                }
            });
        }
    });
    let tasks = handle.metrics().num_alive_tasks();
    assert_eq!(tasks, 2, "a batch, and one that waits");
    let _scope = log.subscribe();
    runtime.block_on(async {
        runner.idle().await;
        tokio::time::sleep(5 * every).await;
    });
    let text = log.text();
    assert_eq!(text.matches("rejected again").count(), 1, "{text}");
    assert!(text.contains("repeats=798"), "{text}");
}

#[tokio::test]
async fn repeats_may_be_counted_for_ever() {
    let runner = Runner::builder().log_repeats_every(Duration::MAX).build();
    for _ in 0..3 {
        runner.add_task(async { Err::<(), _>("no disk") });
    }
    runner.idle().await;
    assert_eq!(runner.stats().failed, 3);
    assert!(runner.shutdown(Duration::ZERO).await.is_clean());
}

#[tokio::test]
async fn each_failure_is_logged_where_that_is_asked_for() {
    let log = Log::default();
    let _scope = log.subscribe();
    let runner = Runner::builder().log_repeats_every(Duration::ZERO).build();
    for _ in 0..10 {
        runner.add_task(async { Err::<(), _>("no disk") });
    }
    runner.idle().await;
    assert_eq!(log.text().matches("background task failed").count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_stays_open_is_warned_of_once() {
    let log = Log::default();
    let _scope = log.subscribe();
    let second = Duration::from_secs(1);
    let builder = Runner::builder().warn_slow_response(10 * second);
    let (runner, tasks) = (builder.build(), BackgroundTasks::new());
    tasks.add_task(Task::new(async {}).named("mail"));
    tasks.add_task(Task::new(async {}).named("audit"));
    let response = attach(&runner, tasks);
    let quick = BackgroundTasks::new();
    quick.add_task(async {});
    drop(attach(&runner, quick));
    tokio::time::sleep(9 * second).await;
    assert_eq!(log.text(), "");
    tokio::time::sleep(60 * second).await;
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("a response that stays open") && text.contains(r#"["mail", "audit"]"#));
    drop(response);
}

/// Over real time: the runtime has none of its own.
#[test]
fn a_missing_timer_is_told_once() {
    let log = Log::default();
    let _scope = log.subscribe();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let slow = Duration::from_millis(20);
    let runner = Runner::builder().warn_slow_response(slow).build();
    runtime.block_on(async {
        let tasks = BackgroundTasks::new();
        tasks.add_task(Task::new(async {}).named("mail"));
        let response = attach(&runner, tasks);
        let begun = std::time::Instant::now();
        while begun.elapsed() < 10 * slow {
            thread::sleep(slow / 20);
            tokio::task::yield_now().await;
        }
        drop(response);
    });
    let text = log.text();
    assert_eq!(
        text.matches("the runtime has no timer").count(),
        1,
        "{text}"
    );
    assert_eq!(
        text.matches("a response that stays open").count(),
        1,
        "{text}"
    );
}

#[tokio::test]
async fn forged_name_stays_on_its_line_of_log_and_report() {
    let log = Log::default();
    let _scope = log.subscribe();

    // Its failure, and the warning that it held its worker.
    let runner = Runner::builder()
        .warn_slow_poll(Duration::from_millis(1))
        .build();
    let fails = async {
        thread::sleep(Duration::from_millis(2));
        Err::<(), _>(FORGED)
    };
    let tasks = BackgroundTasks::new();
    tasks.add_task(Task::new(fails).named(FORGED.to_owned()));
    respond(&runner, tasks);
    runner.idle().await;
    // The warning that nobody took its queue.
    let dropped = BackgroundTasks::new();
    dropped.add_task(Task::new(async {}).named(FORGED.to_owned()));
    drop(dropped);
    // Its abandonment, and the report.
    runner.add_task(Task::new(pending::<()>()).named(FORGED.to_owned()));
    let report = runner.shutdown(Duration::ZERO).await.to_string();
    runner.idle().await;

    let log = log.text();
    assert_eq!(log.lines().count(), 4, "{log}");
    assert_eq!(report.lines().count(), 2, "{report}");
    for text in [log, report] {
        assert!(!text.contains(UNSAFE), "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_leave_write_nothing_and_equal_failures_little() {
    let log = Log::default();
    let _scope = log.subscribe();
    let runner = Runner::new();
    let mut service = runner
        .layer()
        .layer(service_fn(async |request: Request<()>| {
            let tasks = BackgroundTasks::from_extensions(request.extensions()).unwrap();
            tasks.add_task(Task::new(async {}).named("mail"));
            pending::<Result<Response<Full<&[u8]>>, Infallible>>().await
        }));
    for number in 0..100_000 {
        let request = Request::get(format!("/orders/{number}")).body(()).unwrap();
        assert!(service.call(request).now_or_never().is_none());
    }
    runner.idle().await;
    assert_eq!(runner.stats().skipped, 100_000);
    assert_eq!(log.text(), "", "100,000 resets");

    for _ in 0..10_000 {
        runner.add_task(Task::new(async { Err::<(), _>("no disk") }).named("write"));
    }
    runner.idle().await;
    drop(runner.shutdown(Duration::ZERO).await);
    let text = log.text();
    println!("10,000 equal failures: {} bytes\n{text}", text.len());
    assert_eq!(text.lines().count(), 2);
    assert!(text.len() < 1_000);
}
