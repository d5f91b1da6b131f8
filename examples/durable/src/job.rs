//! The job: what an order has done for it after the answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tower_background_tasks::{Job, JobContext, TaskResult};

use crate::warehouse::Warehouse;

/// An order to ship.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShipOrder {
    /// Its number.
    pub number: u64,
    /// How long shipping it takes.
    #[serde(default)]
    pub seconds: f64,
    /// How often there is no carrier at first.
    #[serde(default)]
    pub failures: u32,
}

impl Job for ShipOrder {
    const NAME: &'static str = "ship-order";
    type State = Warehouse;

    async fn run(self, warehouse: Warehouse, cx: JobContext) -> TaskResult {
        sleep(Duration::try_from_secs_f64(self.seconds)?).await;
        if cx.attempt() <= self.failures {
            return Err(format!("order {}: no carrier", self.number).into());
        }
        // A job runs at least once. Where twice would harm, its id is the key to do it once: `cx.id()`.
        warehouse.ship(self.number, &cx)?;
        Ok(())
    }
}
