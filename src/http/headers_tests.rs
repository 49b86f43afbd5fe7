//! What preparation leaves of a request head, by tables and by property.

use super::*;
use http::Version;
use proptest::prelude::*;
use proxy_config::model::Direction;
use std::net::Ipv4Addr;

fn fields(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn forwarding(gateway: bool) -> Forwarding {
    Forwarding::at(if gateway { Direction::Gateway } else { Direction::Inbound })
}

fn prepared(before: &[(&str, &str)], gateway: bool) -> HeaderMap {
    prepared_with(before, gateway, forwarding(gateway), None)
}

fn prepared_with(
    before: &[(&str, &str)],
    gateway: bool,
    forwarding: Forwarding,
    vouched: Option<&HeaderValue>,
) -> HeaderMap {
    let mut headers = fields(before);
    let peer = Peer::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));
    let terms = Terms { gateway, peer: &peer, secure: false, vouched, forwarding, upgrade: None };
    let seen = Seen::of(&headers);
    prepare(&mut headers, seen, &terms, &mut RequestIds::new(fastrand::Rng::with_seed(7)));
    headers
}

/// What a sidecar makes of some fields, the request id it adds left out.
fn check(before: &[(&str, &str)], after: &[(&str, &str)]) {
    let mut headers = prepared(before, false);
    headers.remove(REQUEST_ID);
    let mut wanted = fields(after);
    wanted.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    assert_eq!(headers, wanted, "{before:?}");
}

#[test]
fn what_belongs_to_the_clients_connection_goes() {
    check(
        &[("connection", "keep-alive"), ("keep-alive", "timeout=5"), ("accept", "*/*")],
        &[("accept", "*/*")],
    );
    check(
        &[("connection", "close, X-Hop"), ("connection", "x-other"), ("x-hop", "1"), ("x-other", "2")],
        &[],
    );
    check(&[("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("http2-settings", "x")], &[]);
    check(&[("proxy-connection", "keep-alive"), ("proxy-authorization", "Basic x")], &[]);
    check(&[("expect", "100-continue"), ("content-length", "5")], &[("content-length", "5")]);
    check(&[("trailer", "x-sum")], &[("trailer", "x-sum")]);
}

#[test]
fn a_client_cannot_have_a_protected_field_dropped() {
    let protected = [
        "host",
        "cookie",
        "authorization",
        "x-forwarded-for",
        "x-forwarded-host",
        "content-length",
        "content-type",
        "x-real-ip",
        "traceparent",
    ];
    for name in protected {
        check(&[("connection", &format!("close, {}", name.to_uppercase())), (name, "1")], &[(name, "1")]);
    }
    let kept = prepared(&[("connection", "x-request-id"), ("x-request-id", "mine")], false);
    assert_eq!(kept["x-request-id"], "mine");
}

#[test]
fn te_keeps_trailers_and_nothing_else() {
    check(&[("te", "trailers"), ("connection", "TE")], &[("te", "trailers")]);
    check(&[("te", "gzip, Trailers;q=0.5")], &[("te", "trailers")]);
    check(&[("te", "gzip"), ("te", "trailers")], &[("te", "trailers")]);
    check(&[("te", "gzip")], &[]);
    check(&[("te", "trailersx")], &[]);
}

#[test]
fn an_upgrade_keeps_its_two_fields() {
    let mut headers = fields(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "k"),
    ]);
    let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let protocol = HeaderValue::from_static("websocket");
    let forwarding = forwarding(false);
    let upgrade = Some(&protocol);
    let terms = Terms { gateway: false, peer: &peer, secure: true, vouched: None, forwarding, upgrade };
    let seen = Seen::of(&headers);
    prepare(&mut headers, seen, &terms, &mut RequestIds::new(fastrand::Rng::with_seed(7)));
    headers.remove(REQUEST_ID);
    assert_eq!(
        headers,
        fields(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
            ("x-forwarded-proto", "https")
        ])
    );
}

#[test]
fn a_gateway_appends_the_client_and_a_sidecar_passes_what_it_is_told() {
    let told = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        ("x-forwarded-proto", "https"),
    ];
    check(&told, &told);
    let headers = prepared(&told, true);
    assert_eq!(headers["x-forwarded-for"], "1.1.1.1,2.2.2.2, 3.3.3.3,10.0.0.9");
    assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(prepared(&[], true)["x-forwarded-for"], "10.0.0.9");
    let mapped = Peer::new("::ffff:1.2.3.4".parse().unwrap());
    assert_eq!(mapped.address, "1.2.3.4");
}

#[test]
fn what_is_said_of_a_client_is_dropped_passed_on_added_to_or_replaced() {
    use ClientCert::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
    let own = HeaderValue::from_static("By=me;URI=you");
    // Of a client that says `a`, with a certificate and without; and of one with a certificate that says nothing.
    for (client_cert, with, without, silent) in [
        (Sanitize, "", "", ""),
        (ForwardOnly, "a", "", ""),
        (AppendForward, "a,By=me;URI=you", "", "By=me;URI=you"),
        (SanitizeSet, "By=me;URI=you", "", "By=me;URI=you"),
        (AlwaysForwardOnly, "a", "a", ""),
    ] {
        for gateway in [true, false] {
            let forwarding = Forwarding { client_cert, ..forwarding(gateway) };
            let after = |before: &[(&str, &str)], vouched| {
                let headers = prepared_with(before, gateway, forwarding, vouched);
                let all = headers.get_all(CLIENT_CERT).iter().map(|value| value.to_str().unwrap());
                all.collect::<Vec<_>>().join(" + ")
            };
            let said = [("x-forwarded-client-cert", "a")];
            assert_eq!(after(&said, Some(&own)), with, "{client_cert:?}");
            assert_eq!(after(&said, None), without, "{client_cert:?}");
            assert_eq!(after(&[], Some(&own)), silent, "{client_cert:?}");
        }
    }
    let twice = [("x-forwarded-client-cert", "a"), ("x-forwarded-client-cert", "b")];
    let headers = prepared_with(&twice, false, forwarding(false), Some(&own));
    assert_eq!(headers["x-forwarded-client-cert"], "a,b,By=me;URI=you");
}

#[test]
fn the_client_is_as_many_proxies_away_as_are_trusted() {
    let check = |list: &[&str], proxies: u32, wanted: &str| {
        let before: Vec<_> = list.iter().map(|value| ("x-forwarded-for", *value)).collect();
        let told = told_of(&fields(&before), proxies).map_or(String::new(), |ip| ip.to_string());
        assert_eq!(told, wanted, "{list:?} {proxies}");
        let forwarding = Forwarding { trusted_proxies: proxies, ..forwarding(true) };
        let mut before = before.clone();
        before.extend([("x-envoy-external-address", "6.6.6.6"), ("x-forwarded-proto", "https")]);
        let headers = prepared_with(&before, true, forwarding, None);
        let external = headers.get("x-envoy-external-address").map_or("", |value| value.to_str().unwrap());
        match (proxies, wanted) {
            (0, _) => assert_eq!((external, headers["x-forwarded-proto"].as_bytes()), ("", &b"http"[..])),
            (_, "") => assert_eq!(external, "10.0.0.9"),
            (_, wanted) => assert_eq!(external, wanted),
        }
        assert!(headers["x-forwarded-for"].as_bytes().ends_with(b"10.0.0.9"), "whoever connected is added");
        assert_eq!(headers["x-forwarded-proto"] == "https", proxies > 0);
    };
    check(&["1.1.1.1, 2.2.2.2"], 0, "");
    check(&["1.1.1.1, 2.2.2.2"], 1, "2.2.2.2");
    check(&["1.1.1.1, 2.2.2.2"], 2, "1.1.1.1");
    check(&["1.1.1.1, 2.2.2.2"], 3, "");
    check(&["1.1.1.1", "2.2.2.2,3.3.3.3"], 3, "1.1.1.1");
    check(&["::ffff:1.2.3.4"], 1, "1.2.3.4");
    check(&["1.1.1.1, unknown"], 1, "");
    check(&[], 1, "");
}

#[test]
fn a_client_outside_the_mesh_cannot_speak_as_a_proxy() {
    let headers = prepared(
        &[
            ("x-envoy-internal", "true"),
            ("x-envoy-external-address", "6.6.6.6"),
            ("x-pilotlight-hold", "1"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-envoy_max-retries", "9"),
            ("x-forwarded-client-cert", "By=x"),
            ("x-my_own", "kept"),
        ],
        true,
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["x-forwarded-for", "x-forwarded-proto", "x-my_own", "x-request-id"]);
    check(
        &[("x-pilotlight-hold", "1"), ("x-forwarded-client-cert", "By=x"), ("x-envoy-internal", "1")],
        &[("x-envoy-internal", "1")],
    );
}

#[test]
fn a_request_without_an_id_gets_a_uuid_of_version_4() {
    let mut ids = RequestIds::new(fastrand::Rng::with_seed(1));
    let mut last = HeaderValue::from_static("");
    for _ in 0..100 {
        let id = ids.next_id();
        let text = id.to_str().unwrap();
        assert_eq!(text.len(), 36);
        for (index, byte) in text.bytes().enumerate() {
            match index {
                8 | 13 | 18 | 23 => assert_eq!(byte, b'-'),
                14 => assert_eq!(byte, b'4'),
                19 => assert!(b"89ab".contains(&byte), "{text}"),
                _ => assert!(byte.is_ascii_hexdigit()),
            }
        }
        assert_ne!(id, last);
        last = id;
    }
    assert_eq!(prepared(&[("x-request-id", "")], false)["x-request-id"], "");
}

#[test]
fn trailers_keep_results_and_lose_what_would_be_believed_in_a_head() {
    let mut trailers = fields(&[
        ("grpc-status", "0"),
        ("x-sum", "1"),
        ("content-length", "5"),
        ("host", "evil"),
        ("authorization", "x"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x_forwarded_for", "6.6.6.6"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "a"),
    ]);
    clean_trailers(&mut trailers);
    assert_eq!(trailers, fields(&[("grpc-status", "0"), ("x-sum", "1")]));
}

const NAMES: &[&str] = &[
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-a",
    "x-b",
    "x-envoy-max-retries",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-pilotlight-a",
    "x-request-id",
    "x_forwarded_for",
];

const HOPS: &[&str] = &[
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

fn a_field() -> impl Strategy<Value = (String, String)> {
    let nominated = prop::collection::vec(prop::sample::select(NAMES), 1..4)
        .prop_map(|names| ("connection".to_owned(), names.join(" , ").to_uppercase()));
    let te = prop::sample::select(&["trailers", "gzip", "gzip, trailers", ""][..]);
    prop_oneof![
        2 => nominated,
        1 => te.prop_map(|value| ("te".to_owned(), value.to_owned())),
        6 => (prop::sample::select(NAMES), "[a-z0-9=,]{0,5}").prop_map(|(name, value)| (name.to_owned(), value)),
    ]
}

proptest! {
    #[test]
    fn a_prepared_head_holds_nothing_of_the_connection_and_all_that_is_protected(
        list in prop::collection::vec(a_field(), 0..14), gateway: bool, http1: bool,
    ) {
        let list: Vec<_> = list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let before = fields(&list);
        let nominated: Vec<String> = before.get_all("connection").iter()
            .flat_map(|value| value.to_str().unwrap().split(',').map(|name| name.trim().to_lowercase()).collect::<Vec<_>>())
            .collect();
        let mut request = http::Request::get("http://h/").body(()).unwrap().into_parts().0;
        request.version = Version::HTTP_2;
        request.headers = prepared(&list, gateway);
        let seen = Seen::of(&request.headers);
        let wire = if http1 { crate::http::Wire::Http1 } else { crate::http::Wire::Http2 { secure: false } };
        crate::http::target::address(&mut request, seen, wire, None, None).unwrap();
        let after = &request.headers;

        for name in HOPS {
            prop_assert!(!after.contains_key(*name), "{name} is left in {after:?}");
        }
        prop_assert!(after.get_all("te").iter().all(|value| value == "trailers"));
        for name in &nominated {
            let kept = is_protected(name) || name == "te";
            prop_assert!(kept || !after.contains_key(name.as_str()), "{name} was nominated: {after:?}");
        }
        for name in ["authorization", "content-length", "content-type", "x-forwarded-host", "x-request-id", "trailer"] {
            let values = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
            if before.contains_key(name) {
                prop_assert_eq!(values(&before), values(after), "{} is protected", name);
            }
        }
        prop_assert_eq!(before.contains_key("cookie"), after.contains_key("cookie"));
        prop_assert_eq!(after.contains_key("host"), http1);
        prop_assert_eq!(after.get_all("x-request-id").iter().count().max(1), before.get_all("x-request-id").iter().count().max(1));
        if gateway {
            let list = after["x-forwarded-for"].to_str().unwrap();
            prop_assert!(list.ends_with("10.0.0.9"));
            prop_assert!(!after.keys().any(|name| name.as_str().starts_with("x-pilotlight-") || is_folded(name.as_str())));
        }
    }
}
