//! The response head on its way to the client.
//!
//! In place; the route's own header changes come after.

use super::headers::{KEEP_ALIVE, remove_where, strip};
use super::seen::Seen;
use super::upgrade;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// `x-envoy-upstream-service-time`
pub const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// What an answer says about its way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms<'a> {
    /// From dispatch to the response head; `None` for answers of our own.
    pub service_time: Option<Duration>,
    /// Overwrites `server`; `None` leaves the upstream's.
    pub server: Option<&'a HeaderValue>,
    /// The protocol, when the upstream's 101 was accepted.
    pub upgrade: Option<&'a HeaderValue>,
    /// Tells an HTTP/1 client that its connection ends here; not for HTTP/2.
    pub close: bool,
}

/// Prepares the fields of a response; `seen` is of these fields as they came. Gives how long the upstream says it keeps an idle connection, if it
/// says so.
pub fn prepare(headers: &mut HeaderMap, seen: Seen, terms: &Terms<'_>) -> Option<Duration> {
    let keep_alive = if seen.any(Seen::HOP) { keep_alive(headers) } else { None };
    strip(headers, seen);
    if seen.any(Seen::TE) {
        headers.remove(header::TE);
    }
    if seen.any(Seen::ENVOY.with(Seen::OURS)) {
        remove_where(headers, |name| {
            name.starts_with("x-envoy-peer-metadata")
                || name == "x-envoy-decorator-operation"
                || name.starts_with("x-pilotlight-")
        });
    }
    if let Some(protocol) = terms.upgrade {
        upgrade::keep(headers, protocol);
    } else if terms.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(server) = terms.server {
        headers.insert(header::SERVER, server.clone());
    }
    if let Some(time) = terms.service_time {
        headers.insert(SERVICE_TIME, number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    }
    keep_alive
}

/// `Keep-Alive: timeout=N`.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok())?;
    Some(Duration::from_secs(seconds))
}

/// A number as a value; small ones, which most are, cost no allocation.
pub(super) fn number(value: u64) -> HeaderValue {
    const SMALL: [&str; 16] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
    match usize::try_from(value).ok().and_then(|index| SMALL.get(index)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &[(&str, &str)], terms: &Terms<'_>, after: &[(&str, &str)]) {
        let fields = |list: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            headers
        };
        let mut headers = fields(before);
        let seen = Seen::of(&headers);
        prepare(&mut headers, seen, terms);
        assert_eq!(headers, fields(after), "{before:?}");
    }

    #[test]
    fn what_belongs_to_the_upstreams_connection_goes() {
        check(
            &[
                ("connection", "keep-alive, X-Hop, set-cookie"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("te", "trailers"),
                ("x-hop", "1"),
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2"),
                ("trailer", "grpc-status"),
                ("content-length", "5"),
            ],
            &Terms::default(),
            &[
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2"),
                ("trailer", "grpc-status"),
                ("content-length", "5"),
            ],
        );
    }

    #[test]
    fn what_proxies_say_to_each_other_goes_and_what_clients_read_stays() {
        check(
            &[
                ("x-envoy-peer-metadata", "x"),
                ("x-envoy-peer-metadata-id", "x"),
                ("x-envoy-decorator-operation", "x"),
                ("x-pilotlight-hold", "x"),
                ("x-envoy-ratelimited", "true"),
                ("x-envoy-overloaded", "true"),
            ],
            &Terms::default(),
            &[("x-envoy-ratelimited", "true"), ("x-envoy-overloaded", "true")],
        );
    }

    #[test]
    fn the_way_is_told() {
        let server = HeaderValue::from_static("pilotlight");
        let terms = Terms {
            service_time: Some(Duration::from_micros(15_999)),
            server: Some(&server),
            close: true,
            ..Terms::default()
        };
        check(
            &[("server", "nginx"), ("x-envoy-upstream-service-time", "999")],
            &terms,
            &[("server", "pilotlight"), ("x-envoy-upstream-service-time", "15"), ("connection", "close")],
        );
        let slow = Terms { service_time: Some(Duration::from_millis(1234)), ..Terms::default() };
        check(
            &[("server", "nginx")],
            &slow,
            &[("server", "nginx"), ("x-envoy-upstream-service-time", "1234")],
        );
    }

    #[test]
    fn an_accepted_upgrade_keeps_its_two_fields() {
        let protocol = HeaderValue::from_static("websocket");
        check(
            &[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")],
            &Terms { upgrade: Some(&protocol), close: true, ..Terms::default() },
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")],
        );
    }
}
