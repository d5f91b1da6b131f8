//! [`LimitUse`]: how full one of a runner's limits is.

/// One of a runner's limits, and how many tasks it counts now, from
/// [`Runner::limits`](crate::Runner::limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitUse {
    /// The name of the [`RunnerBuilder`](crate::RunnerBuilder)'s method that sets it, such as
    /// `max_running`.
    pub name: &'static str,
    /// How many tasks take a place. May exceed `limit` for `max_pending`: when responses end, the
    /// tasks that awaited them wait for the runner.
    pub used: usize,
    /// How many places there are.
    pub limit: usize,
}
