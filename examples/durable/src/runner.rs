//! The runner: all that changes between one process and many.

use tower_background_tasks::{BoxError, Jobs, Runner};

use crate::{Engine, Settings, ShipOrder, warehouse::Warehouse};

/// The jobs there are, for the server and the worker alike.
pub(crate) fn jobs(settings: &Settings) -> Result<Jobs<Warehouse>, BoxError> {
    let warehouse = Warehouse::open(&settings.shipped)?;
    Ok(Jobs::new(warehouse).register::<ShipOrder>())
}

pub(crate) fn runner(settings: &Settings, engine: &Engine) -> Result<Runner, BoxError> {
    let builder = Runner::builder().jobs(jobs(settings)?);
    let builder = match settings.in_process {
        // Jobs run here, after the response. Those that a shutdown would abort go to the store.
        true => builder
            .max_running(settings.max_running)
            .spill_store(engine.store()),
        // Jobs are stored before the response, and run by any worker.
        false => builder
            .job_store(engine.store())
            .job_store_timeout(settings.store_timeout),
    };
    Ok(builder.build())
}
