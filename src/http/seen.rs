//! Which of the fields that need treatment a head carries, found in one pass over its names.
//!
//! Most requests carry few of them; whoever treats a field asks its bit here first, so that an ordinary head
//! costs one walk and no look-ups.

use http::HeaderMap;

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// `connection`
    pub const CONNECTION: Seen = Seen(1 << 0);
    /// `keep-alive`, `proxy-connection`, `proxy-authorization`, `http2-settings`: connection-specific, and
    /// rare.
    pub const HOP: Seen = Seen(1 << 1);
    /// `te`
    pub const TE: Seen = Seen(1 << 2);
    /// `transfer-encoding`
    pub const TRANSFER_ENCODING: Seen = Seen(1 << 3);
    /// `upgrade`
    pub const UPGRADE: Seen = Seen(1 << 4);
    /// `expect`
    pub const EXPECT: Seen = Seen(1 << 5);
    /// `host`
    pub const HOST: Seen = Seen(1 << 6);
    /// `cookie`
    pub const COOKIE: Seen = Seen(1 << 7);
    /// `content-length`
    pub const CONTENT_LENGTH: Seen = Seen(1 << 8);
    /// `content-type`
    pub const CONTENT_TYPE: Seen = Seen(1 << 9);
    /// `grpc-timeout`
    pub const GRPC_TIMEOUT: Seen = Seen(1 << 10);
    /// `x-request-id`
    pub const REQUEST_ID: Seen = Seen(1 << 11);
    /// `x-forwarded-for`
    pub const FORWARDED_FOR: Seen = Seen(1 << 12);
    /// `x-forwarded-proto`
    pub const FORWARDED_PROTO: Seen = Seen(1 << 13);
    /// `x-forwarded-client-cert`
    pub const CLIENT_CERT: Seen = Seen(1 << 14);
    /// Any `x-envoy-…`.
    pub const ENVOY: Seen = Seen(1 << 15);
    /// Any `x-pilotlight-…`.
    pub const OURS: Seen = Seen(1 << 16);
    /// A name that a reader who takes `_` for `-` mistakes for one of the fields above.
    pub const FOLDED: Seen = Seen(1 << 17);

    /// One pass over the names.
    #[inline]
    pub fn of(headers: &HeaderMap) -> Seen {
        let mut all = Seen::default();
        for name in headers.keys() {
            all.0 |= classify(name.as_str()).0;
        }
        all
    }

    /// Whether any of `other` was seen.
    #[inline]
    pub const fn any(self, other: Seen) -> bool {
        self.0 & other.0 != 0
    }

    /// The union.
    #[must_use]
    pub const fn with(self, other: Seen) -> Seen {
        Seen(self.0 | other.0)
    }
}

/// By length first: most names are told apart without a comparison.
#[inline]
fn classify(name: &str) -> Seen {
    let none = Seen::default();
    let is = |wanted: &str, seen: Seen| if name == wanted { seen } else { none };
    if name.starts_with('x') {
        return extension(name);
    }
    match name.len() {
        2 => is("te", Seen::TE),
        4 => is("host", Seen::HOST),
        6 if name.starts_with('c') => is("cookie", Seen::COOKIE),
        6 => is("expect", Seen::EXPECT),
        7 => is("upgrade", Seen::UPGRADE),
        10 if name.starts_with('c') => is("connection", Seen::CONNECTION),
        10 => is("keep-alive", Seen::HOP),
        12 if name.starts_with('c') => is("content-type", Seen::CONTENT_TYPE),
        12 => is("grpc-timeout", Seen::GRPC_TIMEOUT),
        14 if name.starts_with('c') => is("content-length", Seen::CONTENT_LENGTH),
        14 => is("http2-settings", Seen::HOP),
        16 => is("proxy-connection", Seen::HOP),
        17 => is("transfer-encoding", Seen::TRANSFER_ENCODING),
        19 => is("proxy-authorization", Seen::HOP),
        _ => none,
    }
}

fn extension(name: &str) -> Seen {
    match name.as_bytes().get(2..) {
        Some([b'e', b'n', b'v', b'o', b'y', b'-', ..]) if name.starts_with("x-") => return Seen::ENVOY,
        Some([b'p', b'i', ..]) if name.starts_with("x-pilotlight-") => return Seen::OURS,
        _ => {}
    }
    match name {
        "x-request-id" => Seen::REQUEST_ID,
        "x-forwarded-for" => Seen::FORWARDED_FOR,
        "x-forwarded-proto" => Seen::FORWARDED_PROTO,
        "x-forwarded-client-cert" => Seen::CLIENT_CERT,
        _ if memchr::memchr(b'_', name.as_bytes()).is_some() && is_folded(name) => Seen::FOLDED,
        _ => Seen::default(),
    }
}

/// Whether the name, read with `-` for `_`, is one that only proxies may write.
#[cold]
pub(super) fn is_folded(name: &str) -> bool {
    ["x-envoy-", "x-pilotlight-", "x-forwarded-", "x-real-ip", "x-request-id"].iter().any(|ours| {
        name.len() >= ours.len()
            && name.contains('_')
            && name
                .bytes()
                .zip(ours.bytes())
                .all(|(byte, ours)| byte == ours || (byte == b'_' && ours == b'-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HeaderName;

    #[test]
    fn each_name_sets_its_bit_and_no_other() {
        let rows = [
            ("connection", Seen::CONNECTION),
            ("keep-alive", Seen::HOP),
            ("proxy-connection", Seen::HOP),
            ("proxy-authorization", Seen::HOP),
            ("http2-settings", Seen::HOP),
            ("te", Seen::TE),
            ("transfer-encoding", Seen::TRANSFER_ENCODING),
            ("upgrade", Seen::UPGRADE),
            ("expect", Seen::EXPECT),
            ("host", Seen::HOST),
            ("cookie", Seen::COOKIE),
            ("content-length", Seen::CONTENT_LENGTH),
            ("content-type", Seen::CONTENT_TYPE),
            ("grpc-timeout", Seen::GRPC_TIMEOUT),
            ("x-request-id", Seen::REQUEST_ID),
            ("x-forwarded-for", Seen::FORWARDED_FOR),
            ("x-forwarded-proto", Seen::FORWARDED_PROTO),
            ("x-forwarded-client-cert", Seen::CLIENT_CERT),
            ("x-envoy-anything", Seen::ENVOY),
            ("x-pilotlight-hold", Seen::OURS),
            ("x_forwarded_for", Seen::FOLDED),
            ("x-envoy_retry-on", Seen::FOLDED),
            ("x_real-ip", Seen::FOLDED),
            ("x-my_field", Seen::default()),
            ("x-forwarded-host", Seen::default()),
            ("x-envoy", Seen::default()),
            ("x", Seen::default()),
            ("accept", Seen::default()),
            ("origin", Seen::default()),
            ("user-agent", Seen::default()),
            ("traceparent", Seen::default()),
        ];
        for (name, wanted) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
            assert_eq!(Seen::of(&headers), wanted, "{name}");
        }
    }
}
