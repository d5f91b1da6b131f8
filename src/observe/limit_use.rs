//! [`LimitUse`]: how full one of a runner's limits is.

/// One of a runner's limits and its current use, from [`Runner::limits`](crate::Runner::limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitUse {
    /// The name of the [`RunnerBuilder`](crate::RunnerBuilder) method that sets the limit, such as
    /// `max_running`.
    pub name: &'static str,
    /// How many tasks count towards the limit now. For `max_pending`, this may exceed `limit`:
    /// when a response ends, all its tasks become pending, even beyond the limit.
    pub used: usize,
    /// The limit.
    pub limit: usize,
}
