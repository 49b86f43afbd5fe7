//! What changes do to a head, by tables.

use super::*;
use http::{Method, Version};
use std::time::UNIX_EPOCH;

fn facts<'a>(request: Option<&'a HeaderMap>) -> Facts<'a> {
    Facts {
        downstream_remote: "10.1.2.3:4444".parse().unwrap(),
        downstream_local: "10.0.0.1:80".parse().unwrap(),
        protocol: Version::HTTP_11,
        started: UNIX_EPOCH,
        hostname: "node-1",
        method: &Method::GET,
        target: "/",
        authority: "a.example",
        scheme: "http",
        request,
        upstream_host: None,
        upstream_cluster: None,
        status: None,
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn fields(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn ops(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> MessageOps {
    MessageOps { set: pairs(set), add: pairs(add), remove: remove.iter().map(|n| (*n).to_owned()).collect() }
}

fn check(ops: &MessageOps, before: &[(&str, &str)], after: &[(&str, &str)], authority: Option<&str>) {
    let change = HeaderChange::compile(ops, Side::Request).unwrap();
    let mut headers = fields(before);
    let new = change.apply(&mut headers, &facts(None));
    assert_eq!(headers, fields(after), "{ops:?}");
    assert_eq!(new.as_ref().map(|value| value.to_str().unwrap()), authority, "{ops:?}");
}

#[test]
fn headers_are_removed_then_set_then_added() {
    check(&ops(&[], &[], &[]), &[("a", "1")], &[("a", "1")], None);
    check(&ops(&[("a", "2")], &[], &[]), &[("a", "1"), ("a", "1b")], &[("a", "2")], None);
    check(&ops(&[], &[("a", "2")], &[]), &[("a", "1")], &[("a", "1"), ("a", "2")], None);
    check(&ops(&[], &[], &["a"]), &[("a", "1"), ("a", "2"), ("b", "3")], &[("b", "3")], None);
    check(&ops(&[("a", "2")], &[("a", "3")], &["a"]), &[("a", "1")], &[("a", "2"), ("a", "3")], None);
}

#[test]
fn a_value_that_comes_out_empty_changes_nothing() {
    check(&ops(&[("a", "%REQ(none)%")], &[("b", "")], &[]), &[("a", "1")], &[("a", "1")], None);
}

#[test]
fn a_request_reads_the_fields_it_changes() {
    check(&ops(&[("b", "was %REQ(a)%")], &[], &[]), &[("a", "1")], &[("a", "1"), ("b", "was 1")], None);
}

#[test]
fn host_and_authority_rewrite_the_authority_and_leave_the_fields_alone() {
    for name in ["host", "Host", ":authority"] {
        check(
            &ops(&[(name, "new.example")], &[], &[]),
            &[("host", "a")],
            &[("host", "a")],
            Some("new.example"),
        );
        check(&ops(&[], &[(name, "new.example")], &[]), &[], &[], Some("new.example"));
    }
    check(&ops(&[("host", "x.%REQ(:authority)%")], &[], &[]), &[], &[], Some("x.a.example"));
    let twice = ops(&[("host", "a")], &[(":authority", "b")], &[]);
    assert!(HeaderChange::compile(&twice, Side::Request).is_err());
}

#[test]
fn a_response_reads_both_heads_and_says_when_it_needs_the_requests() {
    let change = |value| HeaderChange::compile(&ops(&[("out", value)], &[], &[]), Side::Response).unwrap();
    let request = fields(&[("x-id", "7")]);
    let mut headers = fields(&[("server", "s")]);
    let both = change("%REQ(x-id)%/%RESP(server)%");
    both.apply(&mut headers, &facts(Some(&request)));
    assert_eq!(headers["out"], "7/s");
    assert!(both.reads_request());
    for value in ["fixed", "%RESP(x)%", "%REQ(:path)%"] {
        assert!(!change(value).reads_request(), "{value}");
    }
}

#[test]
fn framing_and_connection_fields_are_not_the_configurations_to_write() {
    for name in [
        "connection",
        "Transfer-Encoding",
        "content-length",
        "upgrade",
        "te",
        "trailer",
        "keep-alive",
        ":path",
        "a b",
    ] {
        for ops in [ops(&[(name, "x")], &[], &[]), ops(&[], &[(name, "x")], &[])] {
            for side in [Side::Request, Side::Response] {
                assert!(HeaderChange::compile(&ops, side).is_err(), "{ops:?} {side:?}");
            }
        }
    }
    for name in ["host", ":path"] {
        assert!(HeaderChange::compile(&ops(&[], &[], &[name]), Side::Request).is_err(), "{name}");
    }
}
