//! Counts what is allocated. For benches that time nothing, as counting makes allocation slower.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations, and bytes still held, by what `f` does.
pub(crate) fn allocations(f: impl FnOnce()) -> (usize, isize) {
    let region = Region::new(ALLOCATOR);
    f();
    let change = region.change();
    let held = change.bytes_allocated as isize - change.bytes_deallocated as isize
        + change.bytes_reallocated;
    (change.allocations + change.reallocations, held)
}
