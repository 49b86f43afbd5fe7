//! Destinations: endpoints, subsets and terms; what lints say about them.

use crate::pieces::{HELLO, REVIEWS, check_findings, cluster, gateway, rule, rules};
use crate::view::{clusters, findings, load_text, routes_at};
use proxy_config::model::Balance;
use std::time::Duration;

#[test]
fn endpoints_are_those_that_are_ready_and_subsets_go_by_the_labels_of_pods() {
    let text = REVIEWS.to_owned()
        + &rule(
            "r",
            "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
        );
    let loaded = load_text(&text);
    assert_eq!(findings(&loaded), Vec::<String>::new());
    assert_eq!(
        clusters(&loaded.config),
        [
            "outbound|9080||reviews.default.svc.cluster.local: 10.0.0.1:8080 10.0.0.2:8080",
            "outbound|9080|v1|reviews.default.svc.cluster.local: 10.0.0.1:8080",
            "outbound|9080|v2|reviews.default.svc.cluster.local: 10.0.0.2:8080",
        ]
    );
    let v2 = cluster(&loaded, "outbound|9080|v2|reviews.default.svc.cluster.local");
    assert_eq!((v2.identity.version.as_str(), v2.identity.service_name.as_str()), ("v2", "reviews"));
}

#[test]
fn service_entries_are_called_by_address_or_by_name() {
    let entry = |resolution: &str, rest: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e}}
spec:
  hosts: [api.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
  resolution: {resolution}
{rest}"
        )
    };
    for (text, expected) in [
        (entry("DNS", ""), "api.example.com:8080"),
        (
            entry("DNS", "  endpoints: [{address: real.example.com, ports: {http: 8181}}]"),
            "real.example.com:8181",
        ),
        (entry("DNS", "  endpoints: [{address: 127.0.0.1}]"), "127.0.0.1:8080"),
        (
            entry("STATIC", "  endpoints: [{address: 127.0.0.1, ports: {http: 9001}}, {address: '::1'}]"),
            "127.0.0.1:9001 [::1]:8080",
        ),
    ] {
        let loaded = load_text(&text);
        assert_eq!(findings(&loaded), Vec::<String>::new(), "{text}");
        assert_eq!(clusters(&loaded.config), [format!("outbound|80||api.example.com: {expected}")]);
    }
}

#[test]
fn rules_for_a_function_hold_for_its_revisions() {
    let text =
        HELLO.to_owned() + &rule("d", "{host: hello, trafficPolicy: {loadBalancer: {simple: RANDOM}}}");
    let loaded = load_text(&text);
    let policy = cluster(&loaded, "outbound|80||hello-00001.default.svc.cluster.local").policy.clone();
    assert_eq!(policy.balance, Balance::Random);
}

#[test]
fn terms_come_from_the_rule_its_ports_and_its_subsets() {
    let text = REVIEWS.to_owned()
        + &rule(
            "d",
            "{host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7, connectTimeout: 1s}}, \
             outlierDetection: {consecutive5xxErrors: 0, maxEjectionPercent: 50}}, subsets: [{name: v1, labels: \
             {version: v1}, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}]}",
        );
    let loaded = load_text(&text);
    let whole = cluster(&loaded, "outbound|9080||reviews.default.svc.cluster.local").policy.clone();
    assert_eq!((whole.limits.max_connections, whole.limits.connect_timeout), (7, Duration::from_secs(1)));
    let outlier = whole.outlier.unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.interval), (None, Duration::from_secs(10)));
    let v1 = cluster(&loaded, "outbound|9080|v1|reviews.default.svc.cluster.local").policy.clone();
    assert_eq!((v1.limits.max_connections, v1.limits.max_requests_per_connection), (u32::MAX, Some(1)));
    assert_eq!(v1.outlier, whole.outlier);
}

#[test]
fn lints_speak_up_about_what_is_hardly_meant() {
    let hello = |spec: &str| HELLO.to_owned() + &gateway("g", 80, "['*.example.com']") + &rules("v", spec);
    for (text, expected) in [
        (
            hello("{hosts: [hello], gateways: [g], http: [{route: [{destination: {host: hello}}]}]}"),
            &["warning SC013", "warning IST0132"][..],
        ),
        (
            hello(
                "{hosts: [hello], http: [{route: [{destination: {host: hello}}]}, {directResponse: {status: 204}}]}",
            ),
            &["warning IST0130"],
        ),
        (
            hello(
                "{hosts: [hello], http: [{route: [{destination: {host: hello}}], retries: {attempts: 3, perTryTimeout: 2s, \
                 retryOn: 'connect-failure,refused-stream'}}]}",
            ),
            &["warning SC030"],
        ),
        (
            hello(
                "{hosts: [hello], http: [{route: [{destination: {host: hello}}], timeout: 1s, retries: {attempts: 3, \
                 perTryTimeout: 2s, retryOn: reset}}]}",
            ),
            &["warning SC030"],
        ),
        (
            HELLO.to_owned()
                + &rule("d", "{host: hello, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 30ms}}}}"),
            &["warning SC032"],
        ),
        (
            REVIEWS.to_owned()
                + &rule("d", "{host: reviews, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}}"),
            &["warning SC031"],
        ),
        (rule("d", "{host: nobody, trafficPolicy: {loadBalancer: {simple: RANDOM}}}"), &["warning IST0174"]),
        (
            HELLO.to_owned()
                + &rule("a", "{host: hello, trafficPolicy: {loadBalancer: {simple: RANDOM}}}")
                + &rule("b", "{host: hello, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}"),
            &["warning SC033"],
        ),
        (
            HELLO.to_owned()
                + &rule(
                    "a",
                    "{host: '*.default.svc.cluster.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}}",
                )
                + &rule("b", "{host: hello, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}}"),
            &["warning SC034"],
        ),
        (
            REVIEWS.to_owned() + &rule("d", "{host: reviews, subsets: [{name: v9, labels: {version: v9}}]}"),
            &["warning IST0173"],
        ),
    ] {
        check_findings(&text, expected);
    }
}

#[test]
fn an_external_name_that_is_known_here_stands_for_its_target() {
    let alias = |target: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: alias}}
spec: {{type: ExternalName, externalName: {target}, ports: [{{name: http, port: 80}}]}}
---
"
        )
    };
    let loaded = load_text(&(HELLO.to_owned() + &alias("hello.default.svc.cluster.local")));
    let mesh = routes_at(&loaded.config, "mesh:80 alias.default.svc.cluster.local,");
    assert!(mesh[0].ends_with("-> outbound|80||hello-00001.default.svc.cluster.local=1"), "{mesh:#?}");
    let loaded = load_text(&alias("api.example.com"));
    assert_eq!(
        clusters(&loaded.config),
        ["outbound|80||alias.default.svc.cluster.local: api.example.com:80"]
    );
}
