//! [`RequestLine`]: which request a queue is of.

use std::str;

use http::{Method, Request};

/// A request's method and path.
#[derive(Clone, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    /// `None` for a request in authority form (CONNECT).
    path: Option<Path>,
}

/// A copy of a path. hyper's own is a part of its read buffer, and would keep all of that for as long as a task waits.
#[derive(Clone, Debug)]
enum Path {
    /// Most paths are short, and need no allocation.
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Long(Box<str>),
}

const SHORT: usize = 46;

impl RequestLine {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        Self {
            method: request.method().clone(),
            path: uri.path_and_query().map(|_| Path::of(uri.path())),
        }
    }

    /// The path without the query, which may hold secrets.
    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_ref().map(Path::as_str)
    }
}

impl Path {
    #[inline]
    fn of(path: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..path.len()), u8::try_from(path.len())) {
            (Some(short), Ok(length)) => {
                short.copy_from_slice(path.as_bytes());
                Self::Short { length, bytes }
            }
            _ => Self::Long(path.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Short { length, bytes } => {
                str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default() // it is a whole `str`
            }
            Self::Long(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_comes_back_whole_and_without_the_query() {
        for length in 1..200 {
            let path = format!("/{}", "p".repeat(length - 1));
            let request = Request::get(format!("{path}?secret=1")).body(()).unwrap();
            assert_eq!(RequestLine::of(&request).path(), Some(&*path));
        }
    }

    #[test]
    fn a_request_in_authority_form_has_no_path() {
        let request = Request::connect("example.org:443").body(()).unwrap();
        assert_eq!(RequestLine::of(&request).path(), None);
    }
}
