//! [`OpenConnection`]: a connection that outlasted a shutdown's grace period.

use std::{fmt, panic::Location, time::Duration};

use tokio::time::Instant;

use crate::task::request_info::RequestInfo;

/// A connection that was still [kept open](crate::BackgroundTasks::keep_open) when a shutdown's
/// grace period ended. [`ShutdownReport::connections`](crate::ShutdownReport::connections) lists
/// these connections.
///
/// Its [`Display`](fmt::Display) is one line: `GET /chat: kept open for 95.2s, at
/// src/chat.rs:20:18`.
#[derive(Clone, Debug)]
pub struct OpenConnection {
    pub(crate) request: Option<RequestInfo>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) since: Instant,
    /// When the shutdown recorded this connection. `None` until then.
    pub(crate) closed: Option<Instant>,
}

impl OpenConnection {
    /// Returns the request that opened the connection. Returns `None` after
    /// [`Runner::attach`](crate::Runner::attach), which does not know the request.
    pub fn request(&self) -> Option<&RequestInfo> {
        self.request.as_ref()
    }

    /// Returns where in the source [`keep_open`](crate::BackgroundTasks::keep_open) was called.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns how long the connection had been kept open when the grace period ended.
    pub fn age(&self) -> Duration {
        let now = self.closed.unwrap_or_else(Instant::now);
        now.duration_since(self.since)
    }
}

impl fmt::Display for OpenConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.request {
            Some(request) => request.fmt_line(f)?,
            None => f.write_str("a connection")?,
        }
        let (age, location) = (self.age(), self.location);
        write!(f, ": kept open for {age:.1?}, at {location}")
    }
}
