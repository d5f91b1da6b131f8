//! Server and workers are killed again and again: what was accepted is run.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use crate::{
    engines::{Engine, shared},
    http::Client,
    on_each_engine, say,
    scene::{Scene, Shipped, size},
};

on_each_engine!(every_accepted_job_runs_though_server_and_workers_are_killed);

fn every_accepted_job_runs_though_server_and_workers_are_killed(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        let mut processes = [
            scene.work("worker-1"),
            scene.work("worker-2"),
            scene.serve(),
        ];
        let mut kills = 0;
        let accepted = accept_while(scene.server, || {
            let end = Instant::now() + Duration::from_secs(size("CRASH_SECONDS", 10));
            while Instant::now() < end {
                sleep(Duration::from_millis(170 + 70 * (kills % 5)));
                let victim = usize::try_from(kills % 3).expect("it is small");
                processes[victim].kill_and_restart();
                kills += 1;
            }
            scene.wait_for_server();
        });
        let shipped = scene.wait_until_shipped(&accepted);
        let row = Row::new(engine, &accepted, &shipped, kills);
        print_table(row);
        assert!(row.accepted > 500, "too few to mean much: {row:?}");
        assert_eq!(row.lost, 0, "{row:?}");
    });
}

/// The control: a test that cannot fail shows nothing.
#[test]
fn the_count_tells_that_jobs_are_lost_where_they_are_not_stored() {
    shared(|| {
        let scene = Scene::new(Engine::Sqlite).with("MAX_RUNNING", "1");
        let mut server = scene.serve_in_process();
        let accepted = accept_while(scene.server, || sleep(Duration::from_secs(1)));
        server.kill();
        let row = Row::new(Engine::Sqlite, &accepted, &scene.shipped(), 1);
        assert!(row.lost > 0, "{row:?}");
    });
}

#[derive(Clone, Copy, Debug)]
struct Row {
    engine: Engine,
    kills: u64,
    accepted: usize,
    once: usize,
    more: usize,
    lost: usize,
    /// No answer came, as the server was killed; the job was stored all the same.
    unanswered: usize,
}

impl Row {
    fn new(engine: Engine, accepted: &[u64], shipped: &Shipped, kills: u64) -> Self {
        let times = |number| shipped.get(number).copied().unwrap_or_default();
        let count = |is: fn(u32) -> bool| accepted.iter().filter(|n| is(times(n))).count();
        let lost = count(|times| times == 0);
        Self {
            engine,
            kills,
            accepted: accepted.len(),
            once: count(|times| times == 1),
            more: count(|times| times > 1),
            lost,
            unanswered: shipped.len() + lost - accepted.len(),
        }
    }
}

fn print_table(row: Row) {
    static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());
    let mut rows = ROWS.lock().unwrap();
    rows.push(row);
    say!(
        "| killed | kills | accepted | ran once | ran twice or more | lost | stored, but no answer |"
    );
    for row in &*rows {
        say!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.engine,
            row.kills,
            row.accepted,
            row.once,
            row.more,
            row.lost,
            row.unanswered
        );
    }
}

/// The orders that were answered with a 202 while `act` went on.
fn accept_while(server: std::net::SocketAddr, act: impl FnOnce()) -> Vec<u64> {
    let (next, over, accepted) = (AtomicU64::new(1), AtomicBool::new(false), Mutex::default());
    let order = || {
        let mut client = Client::new(server);
        while !over.load(Relaxed) {
            // A new number each time: one that got no answer may have been stored.
            let number = next.fetch_add(1, Relaxed);
            let answer = client.order(&format!(r#"{{"number":{number},"seconds":0.005}}"#));
            if answer == Some(202) {
                let accepted: &Mutex<Vec<u64>> = &accepted;
                accepted.lock().unwrap().push(number);
            }
            sleep(Duration::from_millis(15));
        }
    };
    scope(|scope| {
        for _ in 0..8 {
            scope.spawn(order);
        }
        act();
        over.store(true, Relaxed);
    });
    accepted.into_inner().unwrap()
}
