//! The page itself: one HTML file that contains its style and script.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{
    HeaderValue, Response,
    header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY},
};

use super::{DashboardBody, typed};

static PAGE: LazyLock<Bytes> = LazyLock::new(|| {
    let page = include_str!("assets/page.html")
        .replace("/*style*/", STYLE)
        .replace("/*script*/", SCRIPT);
    page.into()
});

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");

/// Lets the browser run only this script, and load nothing from other servers. The hashes are
/// those of [`SCRIPT`] and [`STYLE`]. If these change, a test in `tests/conformance` fails and
/// shows the new hashes.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-z27tyvTH9vPCJ5yQAx3xEAqbA9UYUPixRJik3+TYa0w='; \
    style-src 'sha256-MS2a6c/1HvU/ogR99nBKrMi/IcLQLDyEN6XBYK02NuU='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn response() -> Response<DashboardBody> {
    let mut response = typed("text/html; charset=utf-8", PAGE.clone().into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
