//! A deploy: SIGTERM to a server that runs its jobs itself.

use std::{
    thread::scope,
    time::{Duration, Instant},
};

use crate::{
    engines::{Engine, shared},
    http::Client,
    on_each_engine, say,
    scene::Scene,
};

on_each_engine!(sigterm_hands_unfinished_jobs_to_the_store_for_a_worker);

fn sigterm_hands_unfinished_jobs_to_the_store_for_a_worker(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine)
            .with("GRACE", "0.5")
            .with("MAX_RUNNING", "10");
        let mut server = scene.serve_in_process();
        let accepted = scope(|scope_| {
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    let server = scene.server;
                    scope_.spawn(move || order_until_refused(server, client))
                })
                .collect();
            std::thread::sleep(Duration::from_secs(1));
            let begun = Instant::now();
            let status = server.terminate();
            let took = begun.elapsed();
            assert!(status.success(), "{}", server.log());
            say!("deploy, {engine}: the server ended in {took:.1?}");
            let accepted = clients.into_iter().map(|client| client.join().unwrap());
            accepted.flatten().collect::<Vec<u64>>()
        });
        let here = scene.shipped().len();
        let log = server.log();
        let last = log
            .lines()
            .find(|line| line.starts_with("Shipped "))
            .expect(&log);
        assert!(
            here < accepted.len(),
            "nothing was left to hand over: {last}"
        );

        let _worker = scene.work("worker");
        let shipped = scene.wait_until_shipped(&accepted);
        let lost = accepted
            .iter()
            .filter(|number| !shipped.contains_key(number))
            .count();
        say!(
            "deploy, {engine}: accepted {}, lost {lost}. {last}",
            accepted.len()
        );
        assert_eq!(lost, 0, "{last}");
    });
}

fn order_until_refused(server: std::net::SocketAddr, client: u64) -> Vec<u64> {
    let mut connection = Client::new(server);
    let mut accepted = Vec::new();
    for number in client * 1_000_000.. {
        match connection.order(&format!(r#"{{"number":{number},"seconds":0.1}}"#)) {
            Some(202) => accepted.push(number),
            _ => break,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    accepted
}
