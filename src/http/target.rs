//! Whom a prepared request head speaks to: path, authority, and the form they take on the upstream's wire.
//!
//! The last step before an attempt. Knows the two wires and nothing about who listens on them.

use super::headers::join_cookies;
use super::response::number;
use super::seen::Seen;
use crate::fault::Kind;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Version, request};
use std::time::Duration;

/// `x-envoy-attempt-count`
pub const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// `x-envoy-expected-rq-timeout-ms`
pub const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// `x-envoy-original-path`
pub const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// What is spoken to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1: the authority goes into `Host`, the target is the path alone.
    Http1,
    /// HTTP/2: the authority goes into the target, beside the scheme.
    Http2 {
        /// Whether the upstream's connection is encrypted.
        secure: bool,
    },
}

/// Addresses a head; `seen` is of its fields as they came. A new path leaves the old one in `x-envoy-original-path`; a new authority replaces the
/// request's.
///
/// # Errors
/// `BadRequest` if what comes out cannot be sent.
pub fn address(
    parts: &mut request::Parts,
    seen: Seen,
    wire: Wire,
    path: Option<PathAndQuery>,
    authority: Option<HeaderValue>,
) -> Result<(), Kind> {
    if let Some(new) = path {
        let old = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let old = HeaderValue::from_str(old).map_err(|_| Kind::BadRequest)?;
        parts.headers.insert(ORIGINAL_PATH, old);
        set_path(&mut parts.uri, new)?;
    }
    match wire {
        Wire::Http1 => http1(parts, seen, authority),
        Wire::Http2 { secure } => http2(parts, authority, secure),
    }
}

fn http1(parts: &mut request::Parts, seen: Seen, authority: Option<HeaderValue>) -> Result<(), Kind> {
    parts.version = Version::HTTP_11;
    if seen.any(Seen::COOKIE) {
        join_cookies(&mut parts.headers);
    }
    if let Some(authority) = authority {
        parts.headers.insert(header::HOST, authority);
    } else if let Some(authority) = parts.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Kind::BadRequest)?;
        parts.headers.insert(header::HOST, host);
    } else if !seen.any(Seen::HOST) {
        // HTTP/1.0 clients may leave it out; RFC 9112 asks for an empty one then.
        parts.headers.entry(header::HOST).or_insert(HeaderValue::from_static(""));
    }
    if parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(Uri::default, Uri::from);
    }
    Ok(())
}

fn http2(parts: &mut request::Parts, authority: Option<HeaderValue>, secure: bool) -> Result<(), Kind> {
    parts.version = Version::HTTP_2;
    let host = parts.headers.remove(header::HOST);
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if let Some(authority) = authority.or(if uri.authority.is_some() { None } else { host }) {
        uri.authority = Some(Authority::try_from(authority.as_bytes()).map_err(|_| Kind::BadRequest)?);
    }
    uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|_| Kind::BadRequest)?;
    Ok(())
}

/// Puts another query in place; empty: none.
///
/// # Errors
/// `BadRequest` if what comes out is no target.
pub fn set_query(uri: &mut Uri, query: &str) -> Result<(), Kind> {
    let path = uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let target = PathAndQuery::try_from(target).map_err(|_| Kind::BadRequest)?;
    set_path(uri, target)
}

pub(super) fn set_path(uri: &mut Uri, path: PathAndQuery) -> Result<(), Kind> {
    if uri.authority().is_none() {
        *uri = Uri::from(path);
        return Ok(());
    }
    let mut whole = std::mem::take(uri).into_parts();
    whole.path_and_query = Some(path);
    *uri = Uri::from_parts(whole).map_err(|_| Kind::BadRequest)?;
    Ok(())
}

/// Frames a body whose length is not known, on HTTP/1: hyper takes it that some methods have none, and would
/// drop it.
pub fn frame(parts: &mut request::Parts) {
    if matches!(parts.method, Method::GET | Method::HEAD)
        && !parts.headers.contains_key(header::CONTENT_LENGTH)
    {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Writes which try this is; the first is 1.
#[inline]
pub fn set_attempt(headers: &mut HeaderMap, attempt: u32) {
    headers.insert(ATTEMPT_COUNT, number(u64::from(attempt)));
}

/// Writes how long the answer is waited for.
pub fn set_expected_timeout(headers: &mut HeaderMap, timeout: Duration) {
    headers.insert(EXPECTED_TIMEOUT, number(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row {
        uri: &'static str,
        fields: &'static [(&'static str, &'static str)],
        path: Option<&'static str>,
        authority: Option<&'static str>,
        target: &'static str,
        host: Option<&'static str>,
    }

    const ROW: Row = Row {
        uri: "/x?y",
        fields: &[("host", "a:1")],
        path: None,
        authority: None,
        target: "/x?y",
        host: None,
    };

    fn addressed(row: &Row, wire: Wire) -> request::Parts {
        let mut request = http::Request::get(row.uri);
        for (name, value) in row.fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let path = row.path.map(|path| path.parse().unwrap());
        let seen = Seen::of(&parts.headers);
        address(&mut parts, seen, wire, path, row.authority.map(HeaderValue::from_static)).unwrap();
        parts
    }

    fn check(wire: Wire, rows: &[Row]) {
        for row in rows {
            let parts = addressed(row, wire);
            assert_eq!(parts.uri.to_string(), row.target, "{} {:?}", row.uri, row.fields);
            let host = parts.headers.get("host").map(|value| value.to_str().unwrap());
            assert_eq!(host, row.host, "{} {:?}", row.uri, row.fields);
        }
    }

    #[test]
    fn on_http_1_the_target_is_the_path_and_host_the_authority() {
        check(
            Wire::Http1,
            &[
                Row { host: Some("a:1"), ..ROW },
                Row { uri: "http://b/x?y", host: Some("b"), ..ROW },
                Row { uri: "http://b", target: "/", host: Some("b"), ..ROW },
                Row { authority: Some("new"), host: Some("new"), ..ROW },
                Row { uri: "http://b/x?y", authority: Some("new"), host: Some("new"), ..ROW },
                Row { path: Some("/z"), target: "/z", host: Some("a:1"), ..ROW },
                Row { uri: "http://b/x", path: Some("/z?q"), target: "/z?q", host: Some("b"), ..ROW },
                Row { fields: &[], host: Some(""), ..ROW },
                Row { uri: "*", target: "*", host: Some("a:1"), ..ROW },
            ],
        );
    }

    #[test]
    fn on_http_2_the_target_carries_scheme_and_authority_and_host_goes() {
        check(
            Wire::Http2 { secure: false },
            &[
                Row { target: "http://a:1/x?y", ..ROW },
                Row { uri: "https://b/x", target: "http://b/x", ..ROW },
                Row { authority: Some("new:2"), target: "http://new:2/x?y", ..ROW },
                Row { path: Some("/z"), target: "http://a:1/z", ..ROW },
            ],
        );
        check(Wire::Http2 { secure: true }, &[Row { target: "https://a:1/x?y", ..ROW }]);
    }

    #[test]
    fn an_authority_that_http_2_cannot_carry_is_a_fault_and_no_panic() {
        for fields in [&[("host", "")][..], &[("host", "a b")], &[]] {
            let mut request = http::Request::get("/");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let (seen, wire) = (Seen::of(&parts.headers), Wire::Http2 { secure: false });
            assert_eq!(address(&mut parts, seen, wire, None, None), Err(Kind::BadRequest));
        }
    }

    #[test]
    fn a_new_path_leaves_the_old_one_behind() {
        let parts = addressed(&Row { path: Some("/z"), ..ROW }, Wire::Http1);
        assert_eq!(parts.headers["x-envoy-original-path"], "/x?y");
        assert!(!addressed(&ROW, Wire::Http1).headers.contains_key("x-envoy-original-path"));
    }

    #[test]
    fn cookies_that_http_2_split_are_one_field_on_http_1() {
        let row =
            Row { fields: &[("host", "a"), ("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")], ..ROW };
        assert_eq!(addressed(&row, Wire::Http1).headers["cookie"], "a=1; b=2; c=3");
        assert_eq!(addressed(&row, Wire::Http1).headers.get_all("cookie").iter().count(), 1);
        assert_eq!(
            addressed(&row, Wire::Http2 { secure: false }).headers.get_all("cookie").iter().count(),
            3
        );
    }

    #[test]
    fn a_body_of_unknown_length_is_framed_where_none_is_expected() {
        for (method, length, framed) in
            [("GET", None, true), ("HEAD", None, true), ("GET", Some("3"), false), ("POST", None, false)]
        {
            let mut request = http::Request::builder().method(method).uri("/");
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            frame(&mut parts);
            assert_eq!(parts.headers.contains_key("transfer-encoding"), framed, "{method} {length:?}");
        }
    }

    #[test]
    fn the_try_and_its_timeout_are_told() {
        let mut headers = HeaderMap::new();
        set_attempt(&mut headers, 1);
        set_attempt(&mut headers, 40);
        set_expected_timeout(&mut headers, Duration::from_secs(15));
        assert_eq!(headers["x-envoy-attempt-count"], "40");
        assert_eq!(headers["x-envoy-expected-rq-timeout-ms"], "15000");
        assert_eq!(headers.len(), 2);
    }
}
