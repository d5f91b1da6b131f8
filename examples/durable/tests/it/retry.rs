//! Jobs that fail, and jobs that no worker can run.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tower_background_tasks::{Job, JobContext, StoredJob, TaskResult};

use crate::{
    engines::{Engine, shared},
    http::Client,
    on_each_engine,
    scene::Scene,
};

on_each_engine!(
    a_job_that_fails_at_first_is_tried_again_until_it_succeeds,
    a_job_that_fails_for_ever_is_kept_as_dead,
    a_job_of_an_unknown_name_is_kept_as_dead_with_the_reason,
    a_job_whose_payload_does_not_parse_is_kept_as_dead_with_the_reason,
    a_job_of_an_unknown_name_is_left_to_the_worker_that_comes_next,
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
        assert!(dead.contains(r#"\"number\":8"#), "{dead}");
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
        assert!(dead.contains(r#"\"numbers\":[1,2]"#), "{dead}");
        assert!(
            dead.contains("the payload of job `ship-order` does not parse"),
            "{dead}"
        );
    });
}

fn a_job_of_an_unknown_name_is_left_to_the_worker_that_comes_next(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine)
            .with("VERSION_PAUSE", "600")
            .with("GRACE", "0.1");
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

/// What becomes of a job that this example did not store.
fn dead_of<J: Job>(engine: Engine, job: &J) -> String {
    let scene = Scene::new(engine).with("VERSION_PAUSE", "0.1");
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
