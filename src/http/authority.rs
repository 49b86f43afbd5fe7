//! Host and port of a `Host` field or `:authority`, IPv6 included.
//!
//! Read for every request, so it borrows and allocates nothing. Stricter than a URI parser: what is not
//! plainly a host and a port is refused, because another reader might see another host in it.

use http::header::HOST;
use http::{HeaderValue, request};
use std::net::Ipv6Addr;

/// An authority, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As sent.
    pub text: &'a str,
    /// Without port; an IPv6 address in its brackets.
    pub host: &'a str,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Takes an authority apart; `None` if it is not one. The empty text is one: the empty host.
    pub fn parse(text: &'a str) -> Option<Authority<'a>> {
        let (host, port) = if let Some(open) = text.strip_prefix('[') {
            let (address, rest) = open.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            let port = match rest.strip_prefix(':') {
                Some(port) => port,
                None if rest.is_empty() => "",
                None => return None,
            };
            (&text[..address.len() + 2], port)
        } else {
            let end = text.bytes().position(|byte| !is_host_byte(byte)).unwrap_or(text.len());
            let (host, rest) = text.split_at(end);
            if rest.bytes().next().is_some_and(|byte| byte != b':') || host.is_empty() && !text.is_empty() {
                return None;
            }
            (host, rest.get(1..).unwrap_or_default())
        };
        // RFC 3986 allows an empty port behind the colon.
        let port = if port.is_empty() {
            None
        } else if port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()) {
            Some(port.parse().ok()?)
        } else {
            return None;
        };
        Some(Authority { text, host, port })
    }

    /// That of a request as it was sent, whatever it is: the target's, else `Host`.
    pub fn sent(parts: &request::Parts) -> Option<HeaderValue> {
        match parts.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => parts.headers.get(HOST).cloned(),
        }
    }

    /// That of a request: the target's, else `Host`; empty when there is neither. `None` if it is not one.
    pub fn of(parts: &'a request::Parts) -> Option<Authority<'a>> {
        match parts.uri.authority() {
            Some(authority) => Authority::parse(authority.as_str()),
            None => match parts.headers.get(HOST) {
                Some(value) => Authority::parse(value.to_str().ok()?),
                None => Authority::parse(""),
            },
        }
    }
}

/// The bytes of a registered name without percent-encoding, and `_`, which container networks use.
const HOST_BYTES: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let it = byte as u8;
        bytes[byte] = it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    bytes
};

#[inline]
fn is_host_byte(byte: u8) -> bool {
    HOST_BYTES[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found() {
        let rows = [
            ("", "", None),
            ("a.example", "a.example", None),
            ("A.Example.:8080", "A.Example.", Some(8080)),
            ("my_service:80", "my_service", Some(80)),
            ("a:", "a", None),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("a:00080", "a", Some(80)),
            ("[::1]", "[::1]", None),
            ("[::1]:443", "[::1]", Some(443)),
            ("[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]", Some(1)),
        ];
        for (text, host, port) in rows {
            assert_eq!(Authority::parse(text), Some(Authority { text, host, port }), "{text}");
        }
    }

    #[test]
    fn what_another_reader_could_take_for_another_host_is_refused() {
        for text in [
            ":80",
            "user@a",
            "a:b@c",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "a b",
            "a,b",
            "a:65536",
            "a:080808",
            "a:8x",
            "a:+1",
            "a:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[a]",
            "[]",
            "[fe80::1%eth0]",
            "é",
            "a%2fb",
            "a\tb",
            "a;b",
            "\"a\"",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_target_wins_over_host() {
        let parts = |uri: &str, host: Option<&str>| {
            let mut request = http::Request::get(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            request.body(()).unwrap().into_parts().0
        };
        for (uri, host, wanted) in [
            ("/x", Some("a:1"), Some("a:1")),
            ("http://b/x", Some("a:1"), Some("b")),
            ("/x", None, Some("")),
            ("/x", Some("a@b"), None),
            ("http://u@b/x", Some("a"), None),
        ] {
            assert_eq!(Authority::of(&parts(uri, host)).map(|a| a.text), wanted, "{uri} {host:?}");
        }
    }
}
