//! Many jobs, and for a while no worker.

use durable::ShipOrder;
use tower_background_tasks::StoredJob;

use crate::{
    engines::{Engine, on_redis, shared},
    scene::Scene,
};

/// More than Redis' Lua can unpack at once.
const BACKLOG: u64 = 10_000;

#[test]
fn a_backlog_of_ten_thousand_jobs_on_redis_is_run() {
    on_redis(
        "a_backlog_of_ten_thousand_jobs_on_redis_is_run",
        run_backlog,
    );
}

fn run_backlog(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine)
            .with("BATCH_SIZE", "100")
            .with("MAX_RUNNING", "100");
        let numbers: Vec<u64> = (1..=BACKLOG).collect();
        scene.push(numbers.iter().map(|&number| order(number)).collect());
        let _worker = scene.work("worker");
        let shipped = scene.wait_until_shipped(&numbers);
        assert_eq!(shipped.len(), numbers.len());
    });
}

fn order(number: u64) -> StoredJob {
    let order = ShipOrder {
        number,
        ..ShipOrder::default()
    };
    StoredJob::new(&order).expect("it is JSON")
}
