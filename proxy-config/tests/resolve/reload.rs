//! Loading again: what cannot be read keeps its last good version, and nothing else is held back.

use crate::view::{findings, load_files, routes};
use proptest::prelude::*;
use proxy_config::load::{File, Options, load};
use std::path::PathBuf;

fn rules(name: &str, status: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec: {{hosts: [{name}.example.com], gateways: [g], http: [{{directResponse: {{status: {status}}}}}]}}
---
"
    )
}

const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec: {selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
";

/// Loads `first`, then `second` after it; the gateway's routes and the names of what is quarantined.
#[track_caller]
fn check(first: &[(&str, &str)], second: &[(&str, &str)], expected: &[&str], quarantined: &[&str]) {
    let options = Options::default();
    let mut all = vec![("0.yaml", GATEWAY)];
    all.extend_from_slice(first);
    let before = load_files(&all, &options, None);
    assert_eq!(findings(&before), Vec::<String>::new());
    all.truncate(1);
    all.extend_from_slice(second);
    let after = load_files(&all, &options, Some(&before));
    let lines: Vec<String> =
        routes(&after.config).iter().map(|line| line.trim_start_matches("gateway:80 ").to_owned()).collect();
    assert_eq!(lines, expected, "{}", after.report.text());
    let names: Vec<String> = after.quarantined.iter().map(|object| object.name.clone()).collect();
    assert_eq!(names, quarantined, "{}", after.report.text());
    assert_eq!(after.report.has_errors(), !quarantined.is_empty());
}

#[test]
fn a_bad_object_keeps_its_last_good_version_and_holds_nothing_else_back() {
    let first = rules("a", "200") + &rules("b", "200");
    let second = rules("a", "999") + &rules("b", "201");
    check(
        &[("x.yaml", &first)],
        &[("x.yaml", &second)],
        &["a.example.com -> direct 200", "b.example.com -> direct 201"],
        &["a"],
    );
}

#[test]
fn a_bad_object_that_was_never_good_is_absent() {
    let second = rules("a", "999") + &rules("b", "201");
    check(&[], &[("x.yaml", &second)], &["b.example.com -> direct 201"], &["a"]);
}

#[test]
fn a_file_with_a_syntax_error_keeps_every_object_last_read_from_it() {
    let first = rules("a", "200") + &rules("b", "200");
    let second = rules("a", "201") + "spec: {hosts: [";
    check(
        &[("x.yaml", &first), ("y.yaml", &rules("c", "200"))],
        &[("x.yaml", &second), ("y.yaml", &rules("c", "203"))],
        &["a.example.com -> direct 200", "b.example.com -> direct 200", "c.example.com -> direct 203"],
        &["a", "b"],
    );
}

#[test]
fn what_is_no_longer_written_is_gone() {
    let first = rules("a", "200") + &rules("b", "200");
    check(&[("x.yaml", &first)], &[("x.yaml", &rules("a", "200"))], &["a.example.com -> direct 200"], &[]);
    check(&[("x.yaml", &first)], &[], &[], &[]);
}

#[test]
fn of_two_resources_of_one_name_the_first_in_path_order_is_used() {
    check(
        &[],
        &[("y.yaml", &rules("a", "202")), ("x.yaml", &rules("a", "201"))],
        &["a.example.com -> direct 201"],
        &["a"],
    );
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_objects() {
    let options = Options::default();
    let before = load_files(&[("0.yaml", GATEWAY), ("x.yaml", &rules("a", "200"))], &options, None);
    let unreadable = File { path: PathBuf::from("x.yaml"), text: Err("permission denied".to_owned()) };
    let gateway = File { path: PathBuf::from("0.yaml"), text: Ok(GATEWAY.into()) };
    let after = load(&[gateway, unreadable], &options, Some(&before.kept));
    assert_eq!(routes(&after.config), ["gateway:80 a.example.com -> direct 200"]);
    assert!(findings(&after)[0].contains("cannot be read: permission denied"));
}

#[test]
fn a_text_is_kept_once_for_as_long_as_something_of_it_is_used() {
    let options = Options::default();
    let file = |text: &str| File { path: PathBuf::from("x.yaml"), text: Ok(text.into()) };
    let holders = |file: &File| std::sync::Arc::strong_count(file.text.as_ref().unwrap());
    let both = rules("a", "200") + &rules("b", "200");
    let (first, again) = (file(&both), file(&both));
    let mut kept = load(std::slice::from_ref(&first), &options, None).kept;
    kept.share(std::slice::from_ref(&again));
    assert_eq!((holders(&first), holders(&again)), (1, 2), "an equal text takes its place");
    let bad = file(&(rules("a", "999") + &rules("b", "201")));
    let after = load(std::slice::from_ref(&bad), &options, Some(&kept)).kept;
    drop(kept);
    assert_eq!((holders(&again), holders(&bad)), (2, 2), "one object of each is in use");
    drop(load(&[file(&both)], &options, Some(&after)));
    drop(after);
    assert_eq!((holders(&again), holders(&bad)), (1, 1));
}

#[test]
fn an_error_survives_any_number_of_reloads() {
    let options = Options::default();
    let good = load_files(&[("0.yaml", GATEWAY), ("x.yaml", &rules("a", "200"))], &options, None);
    let mut last = good;
    for _ in 0..3 {
        last = load_files(&[("0.yaml", GATEWAY), ("x.yaml", &rules("a", "999"))], &options, Some(&last));
        assert_eq!(routes(&last.config), ["gateway:80 a.example.com -> direct 200"]);
    }
}

#[test]
fn a_bad_document_of_a_functions_history_keeps_its_place() {
    let revision = |name: &str, concurrency: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: f}}
spec: {{template: {{metadata: {{name: {name}}}, spec: {{containerConcurrency: {concurrency}, containers: [{{image: i}}]}}}}}}
---
"
        )
    };
    let options = Options::default();
    let first = revision("f-v1", "1") + &revision("f-v2", "2");
    let before = load_files(&[("f.yaml", &first)], &options, None);
    let second = revision("f-v1", "-1") + &revision("f-v2", "3");
    let after = load_files(&[("f.yaml", &second)], &options, Some(&before));
    let revisions: Vec<(&str, u32)> = after
        .config
        .revisions
        .iter()
        .map(|revision| (revision.name.as_str(), revision.concurrency))
        .collect();
    assert_eq!(revisions, [("f-v1", 1), ("f-v2", 3)], "{}", after.report.text());
    assert_eq!(
        routes(&after.config)[0],
        "gateway:default f.default.localhost -> outbound|80||f-v2.default.svc.cluster.local=1"
    );
}

#[test]
fn a_bad_mesh_file_keeps_the_last_good_settings() {
    let options = |text: &str| {
        let file = File { path: PathBuf::from("mesh.yaml"), text: Ok(text.into()) };
        Options { mesh_file: Some(file), ..Options::default() }
    };
    let before = load_files(&[], &options("trustDomain: one.example"), None);
    assert_eq!(before.config.mesh.trust_domain, "one.example");
    for bad in ["trustDomain: [", "accessLogEncoding: XML\ntrustDomain: two.example"] {
        let after = load_files(&[], &options(bad), Some(&before));
        assert_eq!(after.config.mesh.trust_domain, "one.example", "{bad}");
        assert!(after.report.has_errors(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(
        pieces in prop::collection::vec(0usize..12, 0..12),
        cut in 0usize..2000,
    ) {
        let parts = [
            GATEWAY.to_owned(),
            rules("a", "200"),
            rules("b", "999"),
            "kind: Service\napiVersion: serving.knative.dev/v1\nmetadata: {name: f}\nspec: {template: {spec: {containers: [{image: i}]}}, traffic: [{revisionName: g, percent: 100, tag: t}]}\n---\n".to_owned(),
            "kind: Service\napiVersion: v1\nmetadata: {name: f}\nspec: {ports: [{port: 80}]}\n---\n".to_owned(),
            "kind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: d}\nspec: {host: '*', trafficPolicy: {outlierDetection: {}}}\n---\n".to_owned(),
            "kind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: e}\nspec: {hosts: ['*.x.com'], ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n".to_owned(),
            "spec: [".to_owned(),
            "---\n".to_owned(),
            "\u{0}".to_owned(),
            "{}".to_owned(),
            "- a\n".to_owned(),
        ];
        let mut text: String = pieces.iter().map(|piece| parts[*piece].as_str()).collect();
        let before = load_files(&[("a.yaml", &text)], &Options::default(), None);
        let mut end = cut.min(text.len());
        while !text.is_char_boundary(end) { end -= 1 }
        text.truncate(end);
        let after = load_files(&[("a.yaml", &text)], &Options::default(), Some(&before));
        let _ = after.report.text();
        let names: Vec<&str> = after.config.clusters.iter().map(|c| c.name.as_str()).collect();
        let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        prop_assert_eq!(names.len(), unique.len());
    }
}
