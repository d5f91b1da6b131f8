//! [`RequestInfo`]: the request that a task belongs to.

use std::{fmt, str, sync::Arc};

use http::{Extensions, HeaderMap, HeaderName, Method, Request};

/// The request that a task belongs to, from [`TaskContext::request`](crate::TaskContext::request).
#[derive(Clone)]
pub struct RequestInfo {
    pub(crate) method: Method,
    path: Path,
    id: Option<Arc<str>>,
    route: Option<Route>,
}

/// The route of a request, taken as the request arrives.
#[derive(Clone)]
pub(crate) struct Route(pub(crate) Arc<str>);

/// A copy of a path. hyper's own path points into its read buffer. It would keep the whole buffer
/// alive while a task waits.
#[derive(Clone, Default)]
enum Path {
    /// For a request in authority form (CONNECT).
    #[default]
    None,
    /// Most paths are short and need no allocation.
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Long(Box<str>),
}

const SHORT_LENGTH: u8 = 46;
const SHORT: usize = SHORT_LENGTH as usize;

/// The longest id that is kept, in bytes. A client may send one of any length.
const LONGEST_ID: usize = 128;

impl RequestInfo {
    /// Returns the request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path without the query, which may contain secrets. Returns `None` for a request
    /// in authority form (CONNECT).
    pub fn path(&self) -> Option<&str> {
        match &self.path {
            Path::None => None,
            // The bytes are a whole `str`.
            Path::Short { length, bytes } => str::from_utf8(&bytes[..usize::from(*length)]).ok(),
            Path::Long(path) => Some(path),
        }
    }

    /// Returns the request's id, from the header that
    /// [`RunnerBuilder::request_id_header`](crate::RunnerBuilder::request_id_header) names.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the route that the request matched, such as `/orders/{id}`.
    /// [`RunnerBuilder::route`](crate::RunnerBuilder::route) takes it from the request.
    pub fn route(&self) -> Option<&str> {
        self.route.as_ref().map(|Route(route)| &**route)
    }

    /// Returns a shared handle to the route.
    #[cfg(any(feature = "dashboard", feature = "metrics"))]
    pub(crate) fn shared_route(&self) -> Option<Arc<str>> {
        self.route.as_ref().map(|Route(route)| Arc::clone(route))
    }

    /// Writes method and path for a log line. The path comes from a client, so it is escaped.
    pub(crate) fn fmt_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path().unwrap_or_default();
        write!(f, "{} {}", self.method, path.escape_debug())
    }

    /// `noted` holds the values that were captured as the request arrived.
    pub(crate) fn of<B>(
        request: &Request<B>,
        id_header: Option<&HeaderName>,
        noted: &Extensions,
    ) -> Self {
        let uri = request.uri();
        let path = uri.path_and_query().map(|_| Path::of(uri.path()));
        Self {
            method: request.method().clone(),
            path: path.unwrap_or_default(),
            id: id_header.and_then(|name| id_in(request.headers(), name)),
            route: noted.get().cloned(),
        }
    }
}

fn id_in(headers: &HeaderMap, name: &HeaderName) -> Option<Arc<str>> {
    let id = headers.get(name)?.to_str().ok()?;
    (1..=LONGEST_ID).contains(&id.len()).then(|| id.into())
}

impl Path {
    fn of(path: &str) -> Self {
        let Ok(length @ 0..=SHORT_LENGTH) = u8::try_from(path.len()) else {
            return Self::Long(path.into());
        };
        let mut bytes = [0; SHORT];
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        Self::Short { length, bytes }
    }
}

impl fmt::Debug for RequestInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestInfo")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("id", &self.id)
            .field("route", &self.route())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_comes_back_without_the_query() {
        for length in 1..200 {
            let path = format!("/{}", "p".repeat(length - 1));
            let request = Request::get(format!("{path}?secret=1")).body(()).unwrap();
            assert_eq!(
                RequestInfo::of(&request, None, &Extensions::new()).path(),
                Some(&*path)
            );
        }
    }

    #[test]
    fn a_request_in_authority_form_has_no_path() {
        let request = Request::connect("example.org:443").body(()).unwrap();
        let info = RequestInfo::of(&request, None, &Extensions::new());
        assert_eq!((info.method().as_str(), info.path()), ("CONNECT", None));
    }

    #[test]
    fn an_id_is_kept_if_it_is_short_text() {
        let header = HeaderName::from_static("x-request-id");
        let id = |value: &[u8]| {
            let request = Request::get("/").header(&header, value).body(()).unwrap();
            let info = RequestInfo::of(&request, Some(&header), &Extensions::new());
            info.id().map(str::to_owned)
        };
        assert_eq!(id(b"a-1").as_deref(), Some("a-1"));
        assert_eq!(id(&[b'x'; 128]).map(|id| id.len()), Some(128));
        assert_eq!((id(&[b'x'; 129]), id(b""), id(b"\xff")), (None, None, None));
    }
}
