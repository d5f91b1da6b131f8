//! The runner: all that changes between one process and many.

use tower_background_tasks::{Jobs, Runner};

use crate::{Engine, Settings, ShipOrder, warehouse::Warehouse};

/// The jobs there are, for the server and the worker alike.
pub(crate) fn jobs(warehouse: Warehouse) -> Jobs<Warehouse> {
    Jobs::new(warehouse).register::<ShipOrder>()
}

/// Jobs run here, after the response. Those that a shutdown would abort go to the store.
pub(crate) fn in_process(settings: &Settings, jobs: Jobs<Warehouse>, engine: &Engine) -> Runner {
    Runner::builder()
        .jobs(jobs)
        .max_running(settings.max_running)
        .spill_store(engine.store())
        .build()
}

/// Jobs are stored before the response, and run by any worker.
pub(crate) fn stored(settings: &Settings, jobs: Jobs<Warehouse>, engine: &Engine) -> Runner {
    Runner::builder()
        .jobs(jobs)
        .job_store(engine.store())
        .job_store_timeout(settings.store_timeout)
        .build()
}
