//! [`OpenRequest`]: a request that outlasted a shutdown's time for requests.

use std::{fmt, time::Duration};

use http::StatusCode;

use crate::task::request_info::RequestInfo;

/// A request that [`Runner::serve`](crate::Runner::serve) cut off at a shutdown.
/// [`ShutdownReport::requests`](crate::ShutdownReport::requests) lists these requests.
///
/// Its [`Display`](fmt::Display) is one line:
/// `GET /events: its response (200 OK) open after 10.0s`.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    pub(crate) request: Option<RequestInfo>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) age: Duration,
}

impl OpenRequest {
    /// Returns the request. Returns `None` after [`Runner::attach`](crate::Runner::attach), which
    /// does not know the request.
    pub fn request(&self) -> Option<&RequestInfo> {
        self.request.as_ref()
    }

    /// Returns the status of the response, whose body had not ended. Returns `None` if the handler
    /// had not answered.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Returns the time from the request's arrival until it was cut off.
    pub fn age(&self) -> Duration {
        self.age
    }
}

impl fmt::Display for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.request {
            Some(request) => request.fmt_line(f)?,
            None => f.write_str("a request")?,
        }
        match self.status {
            Some(status) => write!(f, ": its response ({status}) open after {:.1?}", self.age),
            None => write!(f, ": no response after {:.1?}", self.age),
        }
    }
}
