//! Any head, on its way up and back.
//!
//! What is forwarded holds nothing of the client's connection, has one host and one framing, and would itself be
//! let in by the checks it has passed.
#![no_main]

use arbitrary::Arbitrary;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version, request};
use libfuzzer_sys::fuzz_target;
use pilotlight::http::{
    Authority, Seen, Wire, envoy, grpc, headers, normalize, response, target, upgrade, validate,
};
use pilotlight::route::{Facts, HeaderChange, Side};
use proxy_config::model::MessageOps;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::UNIX_EPOCH;

/// Names are drawn from those that need treatment, and now and then are any.
const NAMES: [&str; 36] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "host",
    "cookie",
    "content-length",
    "content-type",
    "grpc-timeout",
    "grpc-status",
    "authorization",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-client-cert",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-retriable-status-codes",
    "x-envoy-attempt-count",
    "x-envoy-internal",
    "x-pilotlight-a",
    "x_forwarded_for",
    "x-envoy_internal",
    "x-real-ip",
    "traceparent",
    "server",
    "x-a",
    "set-cookie",
];

#[derive(Arbitrary, Debug)]
struct Field {
    name: u8,
    other: Option<String>,
    value: Value,
}

#[derive(Arbitrary, Debug)]
enum Value {
    /// Such as `Connection` nominates.
    Names(Vec<u8>),
    Any(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Input {
    method: u8,
    uri: String,
    http2: bool,
    fields: Vec<Field>,
    gateway: bool,
    up_http2: bool,
    set: Vec<(String, String)>,
    authority: String,
}

fuzz_target!(|input: Input| {
    if let Some(authority) = Authority::parse(&input.authority) {
        assert!(authority.text.starts_with(authority.host));
        assert!(!authority.host.contains(['@', '/', ',', ' ']));
    }
    let fields = fields(&input.fields);
    back(fields.clone());
    let Some(mut parts) = head(&input, fields) else { return };
    if normalize::path(&mut parts, normalize::PathNormalization::Base).is_err() {
        return;
    }
    if parts.uri.path().starts_with('/') {
        assert!(parts.uri.path().split('/').all(|segment| segment != "." && segment != ".."), "{parts:?}");
    }
    let seen = Seen::of(&parts.headers);
    if validate::request(&parts, Authority::sent(&parts).as_ref(), seen).is_err() {
        return;
    }
    up(&input, &mut parts, seen);
});

fn name(index: u8) -> &'static str {
    NAMES[usize::from(index) % NAMES.len()]
}

fn fields(list: &[Field]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for field in list.iter().take(48) {
        let name = field.other.as_deref().unwrap_or(name(field.name));
        let value = match &field.value {
            Value::Names(names) => {
                names.iter().map(|index| self::name(*index)).collect::<Vec<_>>().join(", ").into_bytes()
            }
            Value::Any(bytes) => bytes.clone(),
        };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value))
        {
            map.append(name, value);
        }
    }
    map
}

fn head(input: &Input, fields: HeaderMap) -> Option<request::Parts> {
    let methods = [Method::GET, Method::POST, Method::OPTIONS, Method::CONNECT, Method::DELETE];
    let uri: Uri = input.uri.parse().ok()?;
    let mut parts = Request::new(()).into_parts().0;
    parts.method = methods[usize::from(input.method) % methods.len()].clone();
    parts.uri = uri;
    parts.version = if input.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    parts.headers = fields;
    Some(parts)
}

fn up(input: &Input, parts: &mut request::Parts, seen: Seen) {
    let protocol = upgrade::wanted(parts, seen).filter(|_| !input.up_http2);
    envoy::take(&mut parts.headers, seen, !input.gateway);
    grpc::timeout(&parts.headers);
    let peer = headers::Peer::new(Ipv4Addr::new(10, 0, 0, 9).into());
    let terms =
        headers::Terms {
            gateway: input.gateway,
            peer: &peer,
            secure: false,
            vouched: None,
            forwarding: Default::default(),
            upgrade: protocol.as_ref(),
        };
    headers::prepare(&mut parts.headers, seen, &terms, &mut headers::RequestIds::new(fastrand::Rng::with_seed(1)));
    let authority = change(input, parts);
    let wire = if input.up_http2 { Wire::Http2 { secure: false } } else { Wire::Http1 };
    if target::address(parts, seen, wire, None, authority.clone()).is_err() {
        return;
    }
    target::set_attempt(&mut parts.headers, 1);
    check(parts, protocol.is_some(), input);

    // A rewritten authority is the operator's word and may be anything that a field can hold.
    if authority.is_none() && parts.headers.get("host").is_none_or(|host| !host.is_empty()) {
        let again = Seen::of(&parts.headers);
        assert_eq!(validate::request(parts, Authority::sent(parts).as_ref(), again).err(), None, "{parts:?}");
    }
}

fn change(input: &Input, parts: &mut request::Parts) -> Option<HeaderValue> {
    let ops = MessageOps { set: input.set.clone(), ..MessageOps::default() };
    let change = HeaderChange::compile(&ops, Side::Request).ok()?;
    let facts = Facts {
        downstream_remote: SocketAddr::from(([10, 0, 0, 9], 1)),
        downstream_local: SocketAddr::from(([10, 0, 0, 1], 2)),
        protocol: parts.version,
        started: UNIX_EPOCH,
        hostname: "h",
        method: &parts.method,
        target: parts.uri.path(),
        authority: "a",
        scheme: "http",
        request: None,
        upstream_host: None,
        upstream_cluster: None,
        status: None,
    };
    change.apply(&mut parts.headers, &facts)
}

fn check(parts: &request::Parts, upgraded: bool, input: &Input) {
    let has = |name: &str| parts.headers.contains_key(name);
    for name in ["keep-alive", "proxy-connection", "http2-settings", "transfer-encoding"] {
        assert!(!has(name), "{name} in {parts:?}");
    }
    // The operator may set these two again.
    for name in ["proxy-authorization", "expect"] {
        assert!(!has(name) || input.set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)), "{parts:?}");
    }
    assert_eq!(has("connection"), upgraded);
    assert_eq!(has("upgrade"), upgraded);
    assert!(parts.headers.get_all("te").iter().all(|value| value == "trailers"));
    assert!(parts.headers.get_all("content-length").iter().count() < 2);
    assert_eq!(parts.headers.get_all("host").iter().count(), usize::from(!input.up_http2));
    assert_eq!(parts.uri.authority().is_some(), input.up_http2);
    assert!(has("x-request-id") && has("x-forwarded-proto"));
}

fn back(mut map: HeaderMap) {
    let offered = HeaderValue::from_static("websocket");
    upgrade::accepted(StatusCode::SWITCHING_PROTOCOLS, &map, &offered);
    grpc::status(&map);
    let mut trailers = map.clone();
    headers::clean_trailers(&mut trailers);
    assert!(!trailers.contains_key("content-length") && !trailers.contains_key("host"));
    let seen = Seen::of(&map);
    response::prepare(&mut map, seen, &response::Terms::default());
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "te", "x-pilotlight-a"] {
        assert!(!map.contains_key(name), "{name} in {map:?}");
    }
}
