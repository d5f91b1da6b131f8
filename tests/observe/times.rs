//! `age` and `running_for` mean the same under a subscriber: one that wants everything, or only warnings.

use std::io;

use tower_background_tasks::Runner;
use tracing::{Level, subscriber::with_default};

use crate::{
    capture,
    shared_times::{self as shared, with_and_without_an_observer},
};

fn under_each_subscriber(test: &impl AsyncFn(&Runner)) {
    capture();
    with_and_without_an_observer(test);
    let wants_warnings = tracing_subscriber::fmt().with_max_level(Level::WARN);
    with_default(wants_warnings.with_writer(io::sink).finish(), || {
        with_and_without_an_observer(test);
    });
}

#[test]
fn age_counts_from_when_the_task_was_added() {
    under_each_subscriber(&shared::age_counts_from_the_adding);
}

#[test]
fn age_of_a_task_added_while_streaming_counts_from_then() {
    under_each_subscriber(&shared::age_counts_from_an_adding_while_streaming);
}

#[test]
fn running_for_counts_from_when_the_task_began() {
    under_each_subscriber(&shared::running_for_counts_from_the_begin);
}

#[test]
fn running_for_leaves_out_the_tasks_before_it() {
    under_each_subscriber(&shared::running_for_leaves_out_earlier_tasks);
}
