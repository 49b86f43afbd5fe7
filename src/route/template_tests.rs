//! What each operator gives, by tables.

use super::*;
use std::time::Duration;

fn fields(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn facts() -> Facts<'static> {
    Facts {
        downstream_remote: "10.1.2.3:4444".parse().unwrap(),
        downstream_local: "[::1]:8080".parse().unwrap(),
        protocol: Version::HTTP_2,
        started: UNIX_EPOCH + Duration::from_millis(1_522_797_729_007),
        hostname: "node-1",
        method: &Method::POST,
        target: "/a?b=c",
        authority: "shop.example:80",
        scheme: "http",
        request: None,
        upstream_host: Some("10.9.9.9:80".parse().unwrap()),
        upstream_cluster: Some("outbound|80||shop"),
        status: Some(201),
    }
}

fn check(rows: &[(&str, Option<&str>)], facts: &Facts<'_>) {
    let request = fields(&[("x-a", "one"), ("x-a", "two")]);
    let response = fields(&[("x-r", "r1")]);
    for (text, wanted) in rows {
        let filled = Template::compile(text).unwrap().fill(Some(&request), Some(&response), facts);
        assert_eq!(filled.as_ref().map(|value| value.to_str().unwrap()), *wanted, "{text}");
    }
}

#[test]
fn every_operator_gives_its_fact() {
    check(
        &[
            ("plain text", Some("plain text")),
            ("", None),
            ("100%%", Some("100%")),
            ("%%%PROTOCOL%%%", Some("%HTTP/2%")),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", Some("10.1.2.3:4444")),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", Some("10.1.2.3")),
            ("%DOWNSTREAM_REMOTE_PORT%", Some("4444")),
            ("%DOWNSTREAM_LOCAL_ADDRESS%", Some("[::1]:8080")),
            ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", Some("::1")),
            ("%DOWNSTREAM_LOCAL_PORT%", Some("8080")),
            ("%HOSTNAME%", Some("node-1")),
            ("%PROTOCOL%", Some("HTTP/2")),
            ("%START_TIME%", Some("2018-04-03T23:22:09.007Z")),
            ("%RESPONSE_CODE%", Some("201")),
            ("%UPSTREAM_HOST%", Some("10.9.9.9:80")),
            ("%UPSTREAM_CLUSTER%", Some("outbound|80||shop")),
            ("a=%REQ(X-A)%;b=%RESP(x-r)%.", Some("a=one;b=r1.")),
            ("%REQ(x-none)%", None),
            ("%REQ(x-none?x-a)%", Some("one")),
            ("%REQ(x-none?:path):4%", Some("/a?b")),
            ("%REQ(x-a):2%", Some("on")),
            (
                "%REQ(:METHOD)% %REQ(:scheme)%://%REQ(:authority)%%REQ(:path)%",
                Some("POST http://shop.example:80/a?b=c"),
            ),
            ("%REQ(host)%", Some("shop.example:80")),
        ],
        &facts(),
    );
}

#[test]
fn what_is_not_known_yet_gives_no_text() {
    let facts = Facts { upstream_host: None, upstream_cluster: None, status: None, ..facts() };
    check(
        &[("%UPSTREAM_HOST%%UPSTREAM_CLUSTER%%RESPONSE_CODE%", None), ("to %UPSTREAM_HOST%", Some("to "))],
        &facts,
    );
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_shown_plain() {
    let facts = Facts { downstream_remote: "[::ffff:1.2.3.4]:5".parse().unwrap(), ..facts() };
    check(&[("%DOWNSTREAM_REMOTE_ADDRESS%", Some("1.2.3.4:5"))], &facts);
}

#[test]
fn the_calendar_is_right_at_its_edges() {
    for (seconds, wanted) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_799, "2000-02-29T23:59:59.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000Z"),
    ] {
        let facts = Facts { started: UNIX_EPOCH + Duration::from_secs(seconds), ..facts() };
        check(&[("%START_TIME%", Some(wanted))], &facts);
    }
}

#[test]
fn an_operator_that_is_not_known_is_an_error_that_names_those_that_are() {
    for text in [
        "%NOPE%",
        "%req(x)%",
        "%REQ%",
        "%REQ(%",
        "%REQ(a b)%",
        "%REQ(x):y%",
        "%REQ(x)z%",
        "%RESP(:path)%",
        "%START_TIME(%Y)%",
        "%PROTOCOL(x)%",
    ] {
        let error = Template::compile(text).unwrap_err();
        assert!(error.contains("DOWNSTREAM_REMOTE_ADDRESS") || error.contains("%%"), "{text}: {error}");
    }
    for text in ["50%", "%", "a\r\nb", "%PROTOCOL%\n"] {
        assert!(Template::compile(text).is_err(), "{text:?}");
    }
}

#[test]
fn every_operator_that_configuration_lets_through_compiles() {
    for name in HEADER_OPERATORS {
        let argument = if matches!(name, "REQ" | "RESP") { "(x?y):3" } else { "" };
        assert!(Template::compile(&format!("%{name}{argument}%")).is_ok(), "{name}");
    }
}
