//! gRPC as far as a proxy sees it: is it, until when, how did it end, and how to answer it.
//!
//! Never looks into messages.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use std::time::Duration;

/// `grpc-status`
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `grpc-timeout`
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const UNKNOWN: u8 = 2;

/// Whether a request or response is gRPC, by its content type.
#[inline]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// What the client gives the call, from `grpc-timeout`; a value that breaks the grammar counts as absent.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(TIMEOUT)?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The status in response headers or trailers; a code outside the known ones is 2, unknown.
pub fn status(headers: &HeaderMap) -> Option<u8> {
    Some(match headers.get(STATUS)?.as_bytes() {
        [digit @ b'0'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'6'] => 10 + digit - b'0',
        _ => UNKNOWN,
    })
}

/// The status that an HTTP answer without one stands for, as the gRPC project maps them.
pub fn from_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => UNKNOWN,
    }
}

/// Makes an answer of our own one that a gRPC client understands: 200 and the status in the head, without a
/// body. `message` is percent-encoded as the protocol asks.
pub fn answer(parts: &mut response::Parts, code: u8, message: &str) {
    parts.status = StatusCode::OK;
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(STATUS, HeaderValue::from(u16::from(code)));
    if message.is_empty() {
        return;
    }
    let mut encoded = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(byte);
        } else {
            let hex = b"0123456789ABCDEF";
            encoded.extend([b'%', hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]]);
        }
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(encoded)) {
        parts.headers.insert(MESSAGE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    #[test]
    fn the_content_type_tells() {
        for (value, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("application/grp", false),
        ] {
            assert_eq!(is_grpc(&with(CONTENT_TYPE, value)), wanted, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        for (value, wanted) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("0m", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1 S", None),
            ("", None),
        ] {
            assert_eq!(timeout(&with(TIMEOUT, value)), wanted, "{value}");
        }
    }

    #[test]
    fn statuses_are_those_of_the_protocol() {
        for (value, wanted) in
            [("0", 0), ("9", 9), ("10", 10), ("16", 16), ("17", 2), ("x", 2), ("", 2), ("007", 2)]
        {
            assert_eq!(status(&with(STATUS, value)), Some(wanted), "{value}");
        }
        assert_eq!(status(&HeaderMap::new()), None);
        for (http, wanted) in
            [(200, 0), (400, 13), (401, 16), (403, 7), (404, 12), (503, 14), (500, 2), (418, 2)]
        {
            assert_eq!(from_http(StatusCode::from_u16(http).unwrap()), wanted, "{http}");
        }
    }

    #[test]
    fn an_answer_of_our_own_carries_status_and_message_in_its_head() {
        let (mut parts, ()) = http::Response::builder().status(503).body(()).unwrap().into_parts();
        answer(&mut parts, 14, "100% gone\n\u{e9}");
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers["content-type"], "application/grpc");
        assert_eq!(parts.headers["grpc-status"], "14");
        assert_eq!(parts.headers["grpc-message"], "100%25 gone%0A%C3%A9");
    }
}
