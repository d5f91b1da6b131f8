//! Jobs that fail, and jobs that no worker can run.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tower_background_tasks::{Job, JobContext, StoredJob, TaskResult};

use crate::{
    engines::{Engine, shared},
    http::Client,
    on_each_engine,
    process::Process,
    scene::Scene,
};

on_each_engine!(
    a_job_that_fails_at_first_is_tried_again_until_it_succeeds,
    a_job_that_fails_for_ever_is_kept_as_dead,
    a_job_of_an_unknown_name_is_kept_as_dead_with_the_reason,
    a_job_whose_payload_does_not_parse_is_kept_as_dead_with_the_reason,
    a_job_of_an_unknown_name_is_left_to_the_worker_that_comes_next,
    a_dead_job_is_tried_again_by_its_number,
    a_failed_job_holds_no_place_while_it_waits,
);

/// Of another version of the example.
#[derive(Serialize, Deserialize)]
struct Unknown;

impl Job for Unknown {
    const NAME: &'static str = "from-next-year";
    type State = ();
    async fn run(self, (): (), _cx: JobContext) -> TaskResult {
        Ok(())
    }
}

fn a_job_that_fails_at_first_is_tried_again_until_it_succeeds(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        let (_server, _worker) = (scene.serve(), scene.work("worker"));
        let answer = Client::new(scene.server).order(r#"{"number":7,"failures":2}"#);
        assert_eq!(answer, Some(202));
        scene.wait_until_shipped(&[7]);
        let log = std::fs::read_to_string(scene.dir().join("shipped")).unwrap();
        assert!(log.contains(" attempt 3 "), "{log}");
        assert_eq!(scene.shipped()[&7], 1);
        assert_eq!(scene.dead(), "");
    });
}

fn a_job_that_fails_for_ever_is_kept_as_dead(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        let (_server, _worker) = (scene.serve(), scene.work("worker"));
        let answer = Client::new(scene.server).order(r#"{"number":8,"failures":1000}"#);
        assert_eq!(answer, Some(202));
        let dead = wait_for_dead(&scene);
        assert!(dead.contains(r#""number":8"#), "{dead}");
        assert!(dead.contains("order 8: no carrier"), "{dead}");
    });
}

fn a_job_of_an_unknown_name_is_kept_as_dead_with_the_reason(engine: Engine) {
    shared(|| {
        let dead = dead_of(engine, &Unknown);
        assert!(
            dead.contains("no job is registered as `from-next-year`"),
            "{dead}"
        );
    });
}

fn a_job_whose_payload_does_not_parse_is_kept_as_dead_with_the_reason(engine: Engine) {
    #[derive(Serialize, Deserialize)]
    struct Newer {
        numbers: Vec<u64>,
    }

    impl Job for Newer {
        const NAME: &'static str = durable::ShipOrder::NAME;
        type State = ();
        async fn run(self, (): (), _cx: JobContext) -> TaskResult {
            Ok(())
        }
    }

    shared(|| {
        let dead = dead_of(
            engine,
            &Newer {
                numbers: vec![1, 2],
            },
        );
        assert!(dead.contains(r#""numbers":[1,2]"#), "{dead}");
        assert!(
            dead.contains("the payload of job `ship-order` does not parse"),
            "{dead}"
        );
    });
}

fn a_job_of_an_unknown_name_is_left_to_the_worker_that_comes_next(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine).with("GRACE", "0.1");
        scene.push(vec![StoredJob::new(&Unknown).unwrap()]);
        for name in ["old", "new"] {
            let mut worker = scene.work(name);
            wait_until("it is not tried", || {
                worker.log().contains("`from-next-year`")
            });
            assert!(worker.terminate().success());
            assert_eq!(scene.dead(), "");
        }
    });
}

fn a_dead_job_is_tried_again_by_its_number(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine).with("MAX_ATTEMPTS", "1");
        let (_server, worker) = (scene.serve(), scene.work("worker"));
        let order = r#"{"number":9,"failures":1}"#;
        let (_, id) = Client::new(scene.server)
            .answer("POST /orders", order)
            .unwrap();
        assert_eq!(wait_for_dead(&scene).split(' ').next(), Some(&*id));
        scene.retry(&id);
        wait_until("it is not tried again", || {
            first_attempts(&worker, &id) == 2
        });
        assert!(wait_for_dead(&scene).contains("for POST /orders: "));
    });
}

fn a_failed_job_holds_no_place_while_it_waits(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine)
            .with("MAX_RUNNING", "1")
            .with("FIRST_RETRY", "600");
        let (_server, worker) = (scene.serve(), scene.work("worker"));
        let mut client = Client::new(scene.server);
        let order = r#"{"number":1,"failures":1}"#;
        let (_, id) = client.answer("POST /orders", order).unwrap();
        wait_until("it is not tried", || first_attempts(&worker, &id) == 1);
        client.order(r#"{"number":2}"#);
        assert_eq!(scene.wait_until_shipped(&[2]).len(), 1);
        std::thread::sleep(Duration::from_secs(2)); // apalis' Redis would try it after one
        assert_eq!(
            first_attempts(&worker, &id) + second_attempts(&worker, &id),
            1
        );
        scene.retry(&id);
        wait_until("it is not tried again", || {
            first_attempts(&worker, &id) == 2
        });
    });
}

/// How often the log has a failure of this job's first attempt.
fn first_attempts(worker: &Process, id: &str) -> usize {
    attempts(worker, id, "task.attempt=1 ")
}

fn second_attempts(worker: &Process, id: &str) -> usize {
    attempts(worker, id, "task.attempt=2 ")
}

fn attempts(worker: &Process, id: &str, attempt: &str) -> usize {
    let failed = |line: &&str| line.contains("background job failed") && line.contains(id);
    let log = worker.log();
    let failed = log.lines().filter(failed);
    failed.filter(|line| line.contains(attempt)).count()
}

/// What becomes of a job that this example did not store.
fn dead_of<J: Job>(engine: Engine, job: &J) -> String {
    let scene = Scene::new(engine);
    scene.push(vec![StoredJob::new(job).unwrap()]);
    let mut worker = scene.work("worker");
    let dead = wait_for_dead(&scene);
    // The worker goes on: others are not held up.
    scene.push(vec![
        StoredJob::new(&durable::ShipOrder::default()).unwrap(),
    ]);
    scene.wait_until_shipped(&[0]);
    assert!(worker.terminate().success());
    dead
}

fn wait_for_dead(scene: &Scene) -> String {
    wait_until("it does not die", || !scene.dead().is_empty());
    scene.dead()
}

fn wait_until(otherwise: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
