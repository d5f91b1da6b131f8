//! How many orders a second a server accepts, what an answer takes, and how many a worker runs.

use std::{
    thread::scope,
    time::{Duration, Instant},
};

use crate::{
    engines::{Engine, alone},
    http::Client,
    on_each_engine, say,
    scene::{Scene, size},
};

on_each_engine!(jobs_accepted_and_run_per_second);

fn jobs_accepted_and_run_per_second(engine: Engine) {
    alone(|| {
        for batch in ["1", "10"] {
            let scene = Scene::new(engine).with("BATCH_SIZE", batch);
            let _server = scene.serve();
            let accepted = accept(&format!("stored on {engine}"), &scene);

            let begun = Instant::now();
            let _worker = scene.work("worker");
            assert!(scene.wait_until_shipped(&accepted).len() >= accepted.len());
            let a_second = accepted.len() as f64 / begun.elapsed().as_secs_f64();
            say!("{engine}: one worker that takes {batch} at once ran {a_second:.0} a second");
        }
    });
}

#[test]
fn jobs_accepted_per_second_in_process() {
    alone(|| {
        let scene = Scene::new(Engine::Sqlite);
        let _server = scene.serve_in_process();
        accept("run in process", &scene);
    });
}

/// Prints how it went, and gives the orders' numbers.
fn accept(what: &str, scene: &Scene) -> Vec<u64> {
    let time = Duration::from_millis(size("THROUGHPUT_MILLISECONDS", 500));
    let answers = scope(|threads| {
        let order = |client| threads.spawn(move || order_for(time, scene, client));
        let clients: Vec<_> = (0..16).map(order).collect();
        let answers = clients.into_iter().map(|client| client.join().unwrap());
        answers.flatten().collect::<Vec<_>>()
    });
    let (numbers, mut times): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    times.sort_unstable();
    let within = |share: usize| times[(times.len() - 1) * share / 100];
    say!(
        "{what}: {:.0} accepted a second from 16 clients, half of them within {:.1?}, 99 % within {:.1?}",
        times.len() as f64 / time.as_secs_f64(),
        within(50),
        within(99)
    );
    assert!(times.len() > 20);
    numbers
}

/// The orders' numbers, and what each took.
fn order_for(time: Duration, scene: &Scene, client: u64) -> Vec<(u64, Duration)> {
    let (mut connection, end) = (Client::new(scene.server), Instant::now() + time);
    let mut answers = Vec::new();
    for number in client * 1_000_000.. {
        let begun = Instant::now();
        if begun > end {
            break;
        }
        let answer = connection.order(&format!(r#"{{"number":{number}}}"#));
        assert_eq!(answer, Some(202));
        answers.push((number, begun.elapsed()));
    }
    answers
}
