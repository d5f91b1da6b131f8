//! The runner: all that changes between one process and many.

use tower_background_tasks::{BoxError, Jobs, Runner};

use crate::{Engine, Settings, ShipOrder, warehouse::Warehouse};

pub(crate) fn runner(settings: &Settings, engine: &Engine) -> Result<Runner, BoxError> {
    let jobs = jobs(Warehouse::open(&settings.shipped)?);
    Ok(match settings.in_process {
        true => in_process(settings, jobs, engine),
        false => stored(settings, jobs, engine),
    })
}

/// The jobs there are, for the server and the worker alike.
pub(crate) fn jobs(warehouse: Warehouse) -> Jobs<Warehouse> {
    Jobs::new(warehouse).register::<ShipOrder>()
}

/// Jobs run here, after the response. Those that a shutdown would abort go to the store.
fn in_process(settings: &Settings, jobs: Jobs<Warehouse>, engine: &Engine) -> Runner {
    Runner::builder()
        .jobs(jobs)
        .max_running(settings.max_running)
        .spill_store(engine.store())
        .build()
}

/// Jobs are stored before the response, and run by any worker.
fn stored(settings: &Settings, jobs: Jobs<Warehouse>, engine: &Engine) -> Runner {
    Runner::builder()
        .jobs(jobs)
        .job_store(engine.store())
        .job_store_timeout(settings.store_timeout)
        .build()
}
