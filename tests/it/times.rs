//! `age` and `running_for`: since when, whether or not somebody watches. `observe` has these tests under a subscriber.

use crate::support::times;

#[test]
fn age_counts_from_when_the_task_was_added() {
    times::with_and_without_an_observer(&times::age_counts_from_the_adding);
}

#[test]
fn age_of_a_task_added_while_streaming_counts_from_then() {
    times::with_and_without_an_observer(&times::age_counts_from_an_adding_while_streaming);
}

#[test]
fn running_for_counts_from_when_the_task_began() {
    times::with_and_without_an_observer(&times::running_for_counts_from_the_begin);
}

#[test]
fn running_for_leaves_out_the_tasks_before_it() {
    times::with_and_without_an_observer(&times::running_for_leaves_out_earlier_tasks);
}
