//! What a user's input can do to a log: nothing.

use std::{
    future::pending,
    io::{self, Write},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tower_background_tasks::{BackgroundTasks, Runner, Task};
use tracing::subscriber::{DefaultGuard, set_default};

use crate::{attach, respond};

const FORGED: &str = "mail\nERROR forged: added at src/forged.rs:1:1\r\u{1b}[31m";

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
        assert!(!text.contains(['\r', '\u{1b}']), "{text:?}");
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
        assert!(!text.contains(['\r', '\u{1b}']), "{text:?}");
    }
}
