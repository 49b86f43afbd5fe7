//! Requests that want to leave HTTP behind, and answers that let them.
//!
//! Only HTTP/1.1 upgrades, and never to another HTTP: `h2c` through a proxy would be a tunnel past every
//! rule. The connections are joined only after the upstream's own 101 for the protocol that was asked for.

use super::seen::Seen;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, StatusCode, Version, request};

/// The protocol a request wants to change to, to be offered to the upstream; `None` for ordinary requests,
/// whose `Upgrade`, if any, is dropped.
pub fn wanted(parts: &request::Parts, seen: Seen) -> Option<HeaderValue> {
    if !seen.any(Seen::UPGRADE) || !seen.any(Seen::CONNECTION) || parts.version != Version::HTTP_11 {
        return None;
    }
    let allowed = parts.method != Method::CONNECT && !has_body(parts, seen);
    if !allowed || !names_upgrade(&parts.headers) {
        return None;
    }
    let mut values = parts.headers.get_all(UPGRADE).iter();
    match (values.next(), values.next()) {
        // A list would leave it to the upstream what is spoken through us.
        (Some(only), None) if is_protocol(only.as_bytes()) => Some(only.clone()),
        _ => None,
    }
}

/// Whether an answer accepts the protocol that was asked for.
pub fn accepted(status: StatusCode, headers: &HeaderMap, wanted: &HeaderValue) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
        && names_upgrade(headers)
        && headers.get(UPGRADE).is_some_and(|got| got.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Puts the fields of an upgrade back after those of the connection were removed.
pub fn keep(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol.clone());
}

/// A body before the switch could be read as the first bytes after it.
fn has_body(parts: &request::Parts, seen: Seen) -> bool {
    seen.any(Seen::TRANSFER_ENCODING)
        || (seen.any(Seen::CONTENT_LENGTH)
            && parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0"))
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values.flat_map(|value| tokens(value.as_bytes())).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// One token of RFC 9110, perhaps with a version, that is not HTTP or TLS by another name.
fn is_protocol(text: &[u8]) -> bool {
    let name = text.split(|byte| *byte == b'/').next().unwrap_or_default();
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    let banned: [&[u8]; 5] = [b"h2c", b"h2", b"http", b"tls", b"h3"];
    !name.is_empty() && text.iter().all(token) && !banned.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// The elements of a comma-separated list.
pub(super) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&str, &str)], version: Version, found: Option<&str>) {
        let mut request = http::Request::get("/").version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let got = wanted(&parts, Seen::of(&parts.headers));
        assert_eq!(got.as_ref().map(|value| value.to_str().unwrap()), found, "{fields:?}");
    }

    #[test]
    fn an_upgrade_names_one_protocol_and_says_so_in_connection() {
        let v1 = Version::HTTP_11;
        check(&[("connection", "Upgrade"), ("upgrade", "websocket")], v1, Some("websocket"));
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], v1, Some("WebSocket"));
        check(
            &[("connection", "x"), ("connection", "upgrade"), ("upgrade", "SPDY/3.1")],
            v1,
            Some("SPDY/3.1"),
        );
        check(&[("connection", "upgrade"), ("upgrade", "a"), ("content-length", "0")], v1, Some("a"));
    }

    #[test]
    fn all_else_is_an_ordinary_request() {
        let v1 = Version::HTTP_11;
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "H2C")],
            &[("connection", "upgrade"), ("upgrade", "HTTP/2.0")],
            &[("connection", "upgrade"), ("upgrade", "TLS/1.0")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "x")],
            &[("connection", "upgrade"), ("upgrade", "")],
            &[("connection", "upgrade"), ("upgrade", "/1")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "5")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("transfer-encoding", "chunked")],
        ] {
            check(fields, v1, None);
        }
        for version in [Version::HTTP_10, Version::HTTP_2] {
            check(&[("connection", "upgrade"), ("upgrade", "websocket")], version, None);
        }
    }

    #[test]
    fn only_a_101_for_the_protocol_asked_for_is_an_acceptance() {
        let asked = HeaderValue::from_static("websocket");
        let answer = |status: u16, protocol: &'static str, connection: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static(protocol));
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            accepted(StatusCode::from_u16(status).unwrap(), &headers, &asked)
        };
        assert!(answer(101, "WebSocket", "Upgrade"));
        assert!(!answer(200, "websocket", "Upgrade"));
        assert!(!answer(101, "h2c", "Upgrade"));
        assert!(!answer(101, "websocket", "close"));
        assert!(!accepted(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new(), &asked));
    }
}
