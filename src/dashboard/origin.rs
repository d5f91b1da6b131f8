//! Checks that a request comes from a page of this server, against cross-site request forgery.

use http::{
    HeaderName, Request,
    header::{HOST, ORIGIN},
    uri::Authority,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns false if the headers show that a page of another origin made this request.
///
/// Browsers send `Sec-Fetch-Site` to trustworthy origins (HTTPS, the local machine), and `Origin`
/// with each POST. A client that sends neither is not a browser, so no page made the request.
pub(super) fn is_own<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().ok();
    let origin = origin.and_then(|origin| origin.split_once("://"));
    // HTTP/2 sends the host in the request's target.
    let target = request.uri().authority().map(Authority::as_str);
    let host = target.or_else(|| headers.get(HOST)?.to_str().ok());
    match (origin, host) {
        (Some((_, origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own_with(headers: &[(&str, &str)]) -> bool {
        let mut request = Request::post("/cancel?id=1");
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        is_own(&request.body(()).unwrap())
    }

    #[test]
    fn a_page_of_another_origin_is_told_by_either_header() {
        let host = ("host", "tasks.example:3000");
        let own = ("origin", "http://tasks.example:3000");
        assert!(is_own_with(&[host]), "no browser");
        assert!(is_own_with(&[host, own]));
        assert!(is_own_with(&[host, ("sec-fetch-site", "same-origin")]));
        for site in ["cross-site", "same-site", "unheard-of"] {
            assert!(!is_own_with(&[host, own, ("sec-fetch-site", site)]));
        }
        for origin in [
            "http://evil.example",
            "http://tasks.example:3001",
            "null",
            "",
        ] {
            assert!(!is_own_with(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(!is_own_with(&[own]), "nobody knows whose it is");
    }

    #[test]
    fn the_host_of_http_2_is_in_the_target() {
        let request = Request::post("https://tasks.example/cancel?id=1")
            .header(ORIGIN, "https://tasks.example")
            .body(());
        assert!(is_own(&request.unwrap()));
    }
}
