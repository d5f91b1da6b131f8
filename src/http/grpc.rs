//! The gRPC status of a response, from its trailers, or from its head if it has no body
//! ([Trailers-Only](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses)).

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

/// The status that a client assumes if a call ends without one, or with one that is not a number.
pub(super) const UNKNOWN: u32 = 2;

/// Returns the status code of a head or of trailers. Returns `None` if there is none.
pub(super) fn status(headers: &HeaderMap) -> Option<u32> {
    let status = headers.get("grpc-status")?.to_str().ok();
    let code = status.and_then(|status| status.parse().ok());
    Some(code.unwrap_or(UNKNOWN))
}

/// True if the head is that of a gRPC call, whose status comes in trailers. gRPC-Web sends its
/// status in the body, which is not read here.
pub(super) fn is_call(head: &HeaderMap) -> bool {
    let content_type = head.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn only_grpc_content_types_are_calls() {
        let of = |value| is_call(&head("content-type", value));
        assert!(of("application/grpc") && of("application/grpc+proto"));
        assert!(of("application/grpc;charset=utf-8"));
        assert!(!of("application/grpc-web") && !of("application/json"));
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn a_status_is_its_number_or_unknown() {
        let of = |value| status(&head("grpc-status", value));
        assert_eq!((of("0"), of("13")), (Some(0), Some(13)));
        assert_eq!((of("not found"), of("-1")), (Some(UNKNOWN), Some(UNKNOWN)));
        assert_eq!(status(&HeaderMap::new()), None);
    }
}
