//! [`RequestLine`]: the request that a task belongs to.

use std::str;

use http::{Method, Request};

/// A request's method and path.
#[derive(Clone, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    path: Path,
}

/// A copy of a path. hyper's own is a part of its read buffer, and would keep the whole buffer for
/// as long as a task waits.
#[derive(Clone, Debug, Default)]
enum Path {
    /// For a request in authority form (CONNECT).
    #[default]
    None,
    /// Most paths are short, and need no allocation.
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Long(Box<str>),
}

const SHORT_LENGTH: u8 = 46;
const SHORT: usize = SHORT_LENGTH as usize;

impl RequestLine {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let path = uri.path_and_query().map(|_| Path::of(uri.path()));
        Self {
            method: request.method().clone(),
            path: path.unwrap_or_default(),
        }
    }

    /// Returns the path without the query, which may hold secrets.
    pub(crate) fn path(&self) -> Option<&str> {
        match &self.path {
            Path::None => None,
            // The bytes are a whole `str`.
            Path::Short { length, bytes } => str::from_utf8(&bytes[..usize::from(*length)]).ok(),
            Path::Long(path) => Some(path),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_comes_back_without_the_query() {
        for length in 1..200 {
            let path = format!("/{}", "p".repeat(length - 1));
            let request = Request::get(format!("{path}?secret=1")).body(()).unwrap();
            assert_eq!(RequestLine::of(&request).path(), Some(&*path));
        }
    }

    #[test]
    fn a_request_in_authority_form_has_no_path() {
        let request = Request::connect("example.org:443").body(()).unwrap();
        let line = RequestLine::of(&request);
        assert_eq!((line.method.as_str(), line.path()), ("CONNECT", None));
    }
}
