//! Heads that must not be forwarded, because the next reader might understand them differently.
//!
//! The first look at a request's head, before routing, and at a response's. hyper and h2 have refused what breaks the grammar; here goes
//! what they let through.

use super::authority::Authority;
use super::seen::Seen;
use crate::fault::Kind;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Version, request};

/// Fields of one head; a cookie that HTTP/2 split counts for each part. hyper has the same bound for HTTP/1.
pub const MAX_FIELDS: usize = 100;

/// Checks a request head and gives its authority, so that nobody parses it twice. `named` is what it was
/// sent as ([`Authority::sent`]), which whoever asks has looked up.
///
/// # Errors
/// The fault to answer with.
pub fn request<'a>(
    parts: &request::Parts,
    named: Option<&'a HeaderValue>,
    seen: Seen,
) -> Result<Authority<'a>, Kind> {
    if parts.method == Method::CONNECT {
        return Err(Kind::ConnectRefused);
    }
    if parts.headers.len() > MAX_FIELDS {
        return Err(Kind::TooManyFields);
    }
    if seen.any(Seen::TRANSFER_ENCODING) {
        transfer_encoding(parts, seen)?;
    } else if seen.any(Seen::CONTENT_LENGTH) && several(parts, &CONTENT_LENGTH) {
        return Err(Kind::BadRequest);
    }
    target(parts)?;
    let named = named.map_or(Ok(""), HeaderValue::to_str).map_err(|_| Kind::BadRequest)?;
    let authority = Authority::parse(named).ok_or(Kind::BadRequest)?;
    host(parts, seen, &authority)?;
    Ok(authority)
}

/// Only `chunked`, once, on HTTP/1.1, without a length beside it: the coding is taken off here and another
/// put on, so any other would be lost on the way.
#[cold]
fn transfer_encoding(parts: &request::Parts, seen: Seen) -> Result<(), Kind> {
    if parts.version != Version::HTTP_11 || seen.any(Seen::CONTENT_LENGTH) {
        return Err(Kind::BadRequest);
    }
    let mut values = parts.headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Kind::BadTransferCoding),
    }
}

/// A path from the root, or `*` for OPTIONS; with a scheme, one that is spoken here and a host.
fn target(parts: &request::Parts) -> Result<(), Kind> {
    let uri = &parts.uri;
    let path = uri.path();
    let rooted = path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
    let whole = match (uri.scheme(), uri.authority()) {
        (None, None) => true,
        (Some(scheme), Some(_)) => *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS,
        // h2 takes `:authority` without `:scheme` for what CONNECT sends.
        _ => false,
    };
    if rooted && whole { Ok(()) } else { Err(Kind::BadRequest) }
}

fn host(parts: &request::Parts, seen: Seen, authority: &Authority<'_>) -> Result<(), Kind> {
    if !seen.any(Seen::HOST) {
        // RFC 9112 asks for Host, whatever the target says; HTTP/2 has `:authority`.
        let needs_host = parts.version == Version::HTTP_11;
        return if needs_host { Err(Kind::BadRequest) } else { Ok(()) };
    }
    if several(parts, &HOST) {
        return Err(Kind::BadRequest);
    }
    // In HTTP/1 the absolute target wins over Host (RFC 9112, 3.2.2); in HTTP/2 there is no reason to differ.
    let same = || parts.headers[HOST].as_bytes().eq_ignore_ascii_case(authority.text.as_bytes());
    if parts.version == Version::HTTP_2 && !same() { Err(Kind::BadRequest) } else { Ok(()) }
}

/// Checks a response head from an upstream: the coding is taken off here, so that only `chunked` may be on it,
/// and without a length beside it, which would be believed once the coding is gone.
///
/// # Errors
/// `BadResponse`.
#[inline]
pub fn response(headers: &HeaderMap, seen: Seen) -> Result<(), Kind> {
    if seen.any(Seen::TRANSFER_ENCODING) { response_coding(headers, seen) } else { Ok(()) }
}

fn response_coding(headers: &HeaderMap, seen: Seen) -> Result<(), Kind> {
    if seen.any(Seen::CONTENT_LENGTH) {
        return Err(Kind::BadResponse);
    }
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Kind::BadResponse),
    }
}

fn several(parts: &request::Parts, name: &http::HeaderName) -> bool {
    // As many values as names: no name has several.
    parts.headers.len() != parts.headers.keys_len() && parts.headers.get_all(name).iter().nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `GET /path HTTP/1.1 | name: value`
    fn parts(text: &str) -> request::Parts {
        let mut pieces = text.split(" | ");
        let mut line = pieces.next().unwrap().split(' ');
        let mut request = http::Request::builder().method(line.next().unwrap()).uri(line.next().unwrap());
        request = request.version(match line.next().unwrap() {
            "1.0" => Version::HTTP_10,
            "1.1" => Version::HTTP_11,
            _ => Version::HTTP_2,
        });
        for field in pieces {
            let (name, value) = field.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn check(rows: &[(&str, Result<&str, Kind>)]) {
        for (text, wanted) in rows {
            let parts = parts(text);
            let sent = Authority::sent(&parts);
            let found = request(&parts, sent.as_ref(), Seen::of(&parts.headers));
            assert_eq!(found.map(|authority| authority.text), *wanted, "{text}");
        }
    }

    #[test]
    fn ordinary_requests_pass_and_give_their_authority() {
        check(&[
            ("GET / 1.1 | host: a", Ok("a")),
            ("GET /?a//b@c 1.1 | host: a:80", Ok("a:80")),
            ("GET //b/c 1.1 | host: a", Ok("a")),
            ("GET http://b/x 1.1 | host: b", Ok("b")),
            ("GET / 1.0", Ok("")),
            ("GET / 1.0 | host: a", Ok("a")),
            ("OPTIONS * 1.1 | host: a", Ok("a")),
            ("GET http://a/x 2", Ok("a")),
            ("GET http://a/x 2 | host: A", Ok("a")),
            ("GET /x 2 | host: a", Ok("a")),
            ("POST / 1.1 | host: a | content-length: 5", Ok("a")),
            ("POST / 1.1 | host: a | transfer-encoding: Chunked", Ok("a")),
            ("GET / 1.1 | host: ", Ok("")),
        ]);
    }

    #[test]
    fn an_absolute_target_wins_over_host_in_http_1() {
        check(&[("GET http://b/x 1.1 | host: a", Ok("b"))]);
    }

    #[test]
    fn framing_that_could_be_read_in_two_ways_is_refused() {
        check(&[
            ("POST / 1.1 | host: a | transfer-encoding: chunked | content-length: 5", Err(Kind::BadRequest)),
            ("POST / 1.1 | host: a | transfer-encoding: gzip, chunked", Err(Kind::BadTransferCoding)),
            (
                "POST / 1.1 | host: a | transfer-encoding: chunked | transfer-encoding: chunked",
                Err(Kind::BadTransferCoding),
            ),
            ("POST / 1.1 | host: a | transfer-encoding: xchunked", Err(Kind::BadTransferCoding)),
            ("POST / 1.1 | host: a | transfer-encoding: chunked;x", Err(Kind::BadTransferCoding)),
            ("POST / 1.0 | host: a | transfer-encoding: chunked", Err(Kind::BadRequest)),
            ("POST http://a/ 2 | transfer-encoding: chunked", Err(Kind::BadRequest)),
            ("POST / 1.1 | host: a | content-length: 5 | content-length: 5", Err(Kind::BadRequest)),
        ]);
    }

    #[test]
    fn targets_and_hosts_that_could_be_read_in_two_ways_are_refused() {
        check(&[
            ("CONNECT a:443 1.1 | host: a:443", Err(Kind::ConnectRefused)),
            ("CONNECT http://a/ 2", Err(Kind::ConnectRefused)),
            ("GET a:80 1.1 | host: a", Err(Kind::BadRequest)),
            ("GET * 1.1 | host: a", Err(Kind::BadRequest)),
            ("GET ftp://a/x 1.1 | host: a", Err(Kind::BadRequest)),
            ("GET http://u@a/x 1.1 | host: a", Err(Kind::BadRequest)),
            ("GET / 1.1", Err(Kind::BadRequest)),
            ("GET / 1.1 | host: a | host: b", Err(Kind::BadRequest)),
            ("GET / 1.1 | host: a | host: a", Err(Kind::BadRequest)),
            ("GET / 1.1 | host: a, b", Err(Kind::BadRequest)),
            ("GET / 1.1 | host: u@a", Err(Kind::BadRequest)),
            ("GET http://a/x 2 | host: b", Err(Kind::BadRequest)),
        ]);
    }

    #[test]
    fn a_head_has_at_most_a_hundred_fields_whatever_their_names() {
        let with = |count| format!("GET http://a/ 2{}", " | cookie: a=1".repeat(count));
        check(&[(&with(100), Ok("a")), (&with(101), Err(Kind::TooManyFields))]);
    }

    #[test]
    fn an_answer_may_be_chunked_and_nothing_else() {
        for (codings, wanted) in [
            (&[][..], Ok(())),
            (&["chunked"], Ok(())),
            (&["Chunked"], Ok(())),
            (&["gzip, chunked"], Err(Kind::BadResponse)),
            (&["gzip"], Err(Kind::BadResponse)),
            (&["gzip", "chunked"], Err(Kind::BadResponse)),
        ] {
            let mut answer = http::Response::builder();
            for coding in codings {
                answer = answer.header("transfer-encoding", *coding);
            }
            let answer = answer.body(()).unwrap();
            assert_eq!(response(answer.headers(), Seen::of(answer.headers())), wanted, "{codings:?}");
        }
        let both =
            http::Response::builder().header("transfer-encoding", "chunked").header("content-length", "1");
        let both = both.body(()).unwrap();
        assert_eq!(response(both.headers(), Seen::of(both.headers())), Err(Kind::BadResponse));
    }
}
