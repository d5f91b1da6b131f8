//! [`RequestLine`]: which request a queue is of.

use std::str;

use http::{Method, Request};

/// A request's method and path.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    path: Path,
}

/// A copy of a path. hyper's own is a part of its read buffer, and would keep all of that for as long as a task waits.
#[derive(Clone, Debug, Default, PartialEq)]
enum Path {
    /// Of a request in authority form (CONNECT).
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
    /// Becomes that of `request`.
    #[inline]
    pub(crate) fn set<B>(&mut self, request: &Request<B>) {
        let uri = request.uri();
        self.method.clone_from(request.method());
        if uri.path_and_query().is_some() {
            self.path.set(uri.path());
        } else {
            self.path = Path::None;
        }
    }

    /// Gives back what a long line has needed.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.method = Method::GET; // one that is not standard may be long
        if let Path::Long(_) = self.path {
            self.path = Path::None;
        }
    }

    /// The path without the query, which may hold secrets.
    pub(crate) fn path(&self) -> Option<&str> {
        match &self.path {
            Path::None => None,
            Path::Short { length, bytes } => str::from_utf8(&bytes[..usize::from(*length)]).ok(), // it is a whole `str`
            Path::Long(path) => Some(path),
        }
    }
}

impl Path {
    /// A short path is written where it stays: moving one that has just been written stalls the processor.
    #[inline]
    fn set(&mut self, path: &str) {
        let Ok(path_length @ 0..=SHORT_LENGTH) = u8::try_from(path.len()) else {
            *self = Self::Long(path.into());
            return;
        };
        if !matches!(self, Self::Short { .. }) {
            *self = Self::Short {
                length: 0,
                bytes: [0; SHORT],
            };
        }
        if let Self::Short { length, bytes } = self {
            *length = path_length;
            bytes[..path.len()].copy_from_slice(path.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_comes_back_whole_and_without_the_query() {
        let mut line = RequestLine::default();
        for length in (1..200).chain((1..200).rev()) {
            let path = format!("/{}", "p".repeat(length - 1));
            let request = Request::get(format!("{path}?secret=1")).body(()).unwrap();
            line.set(&request);
            assert_eq!(line.path(), Some(&*path));
        }
    }

    #[test]
    fn a_request_in_authority_form_has_no_path() {
        let mut line = RequestLine::default();
        line.set(&Request::get("/before").body(()).unwrap());
        line.set(&Request::connect("example.org:443").body(()).unwrap());
        assert_eq!((line.method.as_str(), line.path()), ("CONNECT", None));
    }

    #[test]
    fn what_is_long_is_given_back() {
        let mut line = RequestLine::default();
        let method = Method::from_bytes(&[b'M'; 100]).unwrap();
        let request = Request::builder()
            .method(method)
            .uri(format!("/{}", "p".repeat(100)));
        line.set(&request.body(()).unwrap());
        line.forget();
        assert_eq!((line.method, line.path), (Method::GET, Path::None));
    }
}
