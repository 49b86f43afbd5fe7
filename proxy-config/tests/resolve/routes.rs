//! Routes: which listener serves which host, and where its rules lead.

use crate::pieces::{HELLO, REVIEWS, check, check_findings, gateway, rule, rules};
use crate::view::{findings, load_text, routes, routes_at};
use proxy_config::model::Bind;

#[test]
fn without_a_gateway_the_default_one_serves_functions() {
    check(
        HELLO,
        "",
        &[
            "gateway:default hello.default.localhost -> outbound|80||hello-00001.default.svc.cluster.local=1",
            "mesh:80 hello-00001.default.svc.cluster.local,hello-00001.default.svc,hello-00001.default,hello-00001 \
             -> outbound|80||hello-00001.default.svc.cluster.local=1",
            "mesh:80 hello.default.svc.cluster.local,hello.default.svc,hello.default,hello \
             -> outbound|80||hello-00001.default.svc.cluster.local=1",
        ],
    );
}

#[test]
fn the_default_gateway_serves_rules_of_any_gateway_and_says_that_it_is_missing() {
    let text = HELLO.to_owned()
        + &rules(
            "edge",
            "{hosts: [shop.example.com], gateways: [front], http: [{route: [{destination: {host: hello}}]}]}",
        );
    let loaded = load_text(&text);
    assert_eq!(findings(&loaded).len(), 1, "{:#?}", findings(&loaded));
    assert!(findings(&loaded)[0].ends_with("warning IST0101 Referenced gateway not found: \"front\""));
    let served = routes_at(&loaded.config, "gateway:default shop.example.com");
    assert_eq!(served, ["-> outbound|80||hello-00001.default.svc.cluster.local=1"]);
}

#[test]
fn each_gateway_port_is_a_listener_and_admits_hosts_by_its_own() {
    let text = HELLO.to_owned()
        + &gateway("a", 80, "['*.example.com']")
        + &gateway("b", 81, "['*']")
        + &gateway("c", 82, "['other/*', './one.example.com']")
        + &rules(
            "edge",
            "{hosts: [one.example.com, two.example.org], gateways: [a, b, c], http: [{directResponse: {status: 204}}]}",
        );
    let loaded = load_text(&text);
    assert_eq!(findings(&loaded), Vec::<String>::new());
    let binds: Vec<Bind> = loaded.config.listeners.iter().map(|listener| listener.bind).collect();
    let ports = [80, 81, 82].map(Bind::GatewayPort);
    assert_eq!(binds, [&ports[..], &[Bind::Mesh]].concat());
    assert_eq!(routes_at(&loaded.config, "gateway:80"), ["one.example.com -> direct 204"]);
    assert_eq!(routes_at(&loaded.config, "gateway:82"), ["one.example.com -> direct 204"]);
    assert_eq!(
        routes_at(&loaded.config, "gateway:81"),
        [
            "hello.default.localhost -> outbound|80||hello-00001.default.svc.cluster.local=1",
            "one.example.com -> direct 204",
            "two.example.org -> direct 204",
        ]
    );
}

#[test]
fn a_rule_for_exactly_a_functions_host_goes_before_the_function() {
    let spec = "{hosts: [hello.default.localhost], gateways: [g], http: [{directResponse: {status: 204}}]}";
    check(
        &(HELLO.to_owned() + &gateway("g", 80, "['*']") + &rules("own", spec)),
        "gateway:80",
        &["hello.default.localhost -> direct 204"],
    );
    let spec = "{hosts: ['*'], gateways: [g], http: [{directResponse: {status: 204}}]}";
    check(
        &(HELLO.to_owned() + &gateway("g", 80, "['*']") + &rules("all", spec)),
        "gateway:80",
        &[
            "* -> direct 204",
            "hello.default.localhost -> outbound|80||hello-00001.default.svc.cluster.local=1",
        ],
    );
}

#[test]
fn rules_of_several_objects_for_one_gateway_host_follow_each_other_with_catch_alls_last() {
    let spec = |path: &str, status: u16| {
        format!(
            "{{hosts: [a.com], gateways: [g], http: [{{match: [{{uri: {{prefix: {path}}}}}], directResponse: {{status: \
             {status}}}}}, {{directResponse: {{status: 404}}}}]}}"
        )
    };
    let text = gateway("g", 80, "['*']") + &rules("z", &spec("/z", 200)) + &rules("b", &spec("/b", 201));
    check_findings(
        &text,
        &["warning IST0130 the rule here that takes every request of \"a.com\" is never reached"],
    );
    let served = routes_at(&load_text(&text).config, "gateway:80 a.com");
    assert_eq!(served, ["uri^=/b -> direct 201", "uri^=/z -> direct 200", "-> direct 404"]);
}

#[test]
fn a_gateway_of_another_namespace_is_named_with_it() {
    let text = gateway("front", 80, "['*']").replace("{name: front}", "{name: front, namespace: edge}");
    let spec = "{hosts: [a.com], gateways: [front], http: [{directResponse: {status: 204}}]}";
    let loaded = load_text(&(text + &rules("v", spec)));
    let problems = loaded.report.problems();
    let help = problems.iter().find(|p| p.code == "IST0101").and_then(|p| p.help.clone()).unwrap();
    assert!(help.contains("write `edge/front`"), "{help}");
}

#[test]
fn an_https_server_is_bound_though_its_certificate_is_missing() {
    let text = gateway("g", 443, "['*']")
        .replace("protocol: HTTP}", "protocol: HTTPS}")
        .replace("    hosts:", "    tls: {mode: SIMPLE, credentialName: c}\n    hosts:");
    let loaded = load_text(&text);
    assert_eq!(loaded.config.listeners.len(), 2);
    assert!(findings(&loaded).iter().any(|line| line.contains("credentialName not found")));
}

#[test]
fn on_the_mesh_a_service_is_served_on_its_own_port_under_all_its_names() {
    check(
        REVIEWS,
        "mesh:",
        &["9080 reviews.default.svc.cluster.local,reviews.default.svc,reviews.default,reviews \
           -> outbound|9080||reviews.default.svc.cluster.local=1"],
    );
}

#[test]
fn weights_and_subsets_of_a_mesh_rule_become_shares_of_clusters() {
    let text = REVIEWS.to_owned()
        + &rule(
            "r",
            "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
        )
        + &rules(
            "split",
            "{hosts: [reviews], http: [{match: [{headers: {end-user: {exact: jo}}}], route: [{destination: {host: \
             reviews, subset: v2}}]}, {route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: \
             {host: reviews, subset: v2}, weight: 10}]}]}",
        );
    let v = |n| format!("outbound|9080|v{n}|reviews.default.svc.cluster.local");
    check(
        &text,
        "mesh:9080 reviews.default.svc.cluster.local,reviews.default.svc,reviews.default,reviews",
        &[&format!("end-user==jo -> {}=1", v(2)), &format!("-> {}=90 {}=10", v(1), v(2))],
    );
}

#[test]
fn what_does_not_exist_is_said_and_fails_alone() {
    for (destination, finding) in [
        ("{host: nowhere}", "error IST0101 Referenced host not found: \"nowhere\""),
        ("{host: reviews.default}", "error IST0101 Referenced host not found: \"reviews.default\""),
        (
            "{host: reviews, subset: v9}",
            "error IST0101 Referenced host+subset in destinationrule not found: \"reviews+v9\"",
        ),
        (
            "{host: reviews, port: {number: 81}}",
            "error IST0101 Referenced host:port not found: \"reviews:81\"",
        ),
    ] {
        let spec = format!("{{hosts: [reviews], http: [{{route: [{{destination: {destination}}}]}}]}}");
        let text = REVIEWS.to_owned() + &rules("v", &spec);
        check_findings(&text, &[finding]);
        let loaded = load_text(&text);
        assert!(loaded.quarantined.is_empty());
        let lines = routes_at(&loaded.config, "mesh:9080 ");
        let named = lines[0].split_once("-> ").unwrap().1.trim_end_matches("=1");
        assert!(loaded.config.clusters.iter().all(|cluster| cluster.name != named), "{named}");
    }
}

#[test]
fn of_two_mesh_rules_for_one_host_the_first_by_name_is_taken() {
    let spec =
        |status: u16| format!("{{hosts: [reviews], http: [{{directResponse: {{status: {status}}}}}]}}");
    let text = REVIEWS.to_owned() + &rules("b", &spec(202)) + &rules("a", &spec(201));
    check_findings(
        &text,
        &["error IST0109 host \"reviews\" belongs on the mesh to VirtualService default/a"],
    );
    let lines = routes(&load_text(&text).config);
    assert!(
        lines.iter().any(|line| line.ends_with("direct 201")) && !lines.iter().any(|l| l.ends_with("202"))
    );
}

#[test]
fn a_wildcard_rule_speaks_for_services_without_a_rule_of_their_own() {
    let spec = |hosts: &str, status: u16| {
        format!("{{hosts: {hosts}, http: [{{directResponse: {{status: {status}}}}}]}}")
    };
    let text = REVIEWS.to_owned()
        + HELLO
        + &rules("all", &spec("['*.default.svc.cluster.local']", 201))
        + &rules("own", &spec("[hello]", 202));
    let loaded = load_text(&text);
    let at = |start| routes_at(&loaded.config, start);
    assert!(at("mesh:9080 reviews.default.svc.cluster.local,")[0].ends_with("direct 201"));
    assert!(at("mesh:80 hello.default.svc.cluster.local,")[0].ends_with("direct 202"));
}

#[test]
fn a_mesh_rule_for_a_host_that_nobody_has_acts_on_port_80_alone() {
    let spec = "{hosts: [api.example.com], http: [{directResponse: {status: 204}}]}";
    let text = rules("v", spec);
    check_findings(&text, &["warning SC012"]);
    assert_eq!(routes_at(&load_text(&text).config, "mesh:"), ["80 api.example.com -> direct 204"]);
}

#[test]
fn ports_in_matches_choose_the_tables_they_apply_in() {
    let text = REVIEWS.replace(
        "ports: [{name: http, port: 9080}]",
        "ports: [{name: http, port: 80}, {name: http-b, port: 81}]",
    ) + &rules(
        "v",
        "{hosts: [reviews], http: [{match: [{port: 81}], directResponse: {status: 201}}, {route: [{destination: \
             {host: reviews}}]}]}",
    );
    let loaded = load_text(&text);
    let suffix = |start: &str| -> Vec<String> {
        routes_at(&loaded.config, start)
            .iter()
            .map(|line| line.split_once("-> ").unwrap().1.to_owned())
            .collect()
    };
    assert_eq!(suffix("mesh:80"), ["outbound|80||reviews.default.svc.cluster.local=1"]);
    assert_eq!(suffix("mesh:81"), ["direct 201"]);
}

#[test]
fn a_service_of_several_ports_behind_a_gateway_wants_its_port_written() {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {ports: [{name: http-a, port: 81}, {name: http-b, port: 82}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: two-1, labels: {kubernetes.io/service-name: two}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
ports: [{name: http-a, port: 1}, {name: http-b, port: 2}]
---
";
    let spec = "{hosts: [a.com], gateways: [g], http: [{route: [{destination: {host: two}}]}]}";
    let text = service.to_owned() + &gateway("g", 80, "['*']") + &rules("v", spec);
    check_findings(&text, &["error IST0112"]);
    let spec =
        "{hosts: [a.com], gateways: [g], http: [{route: [{destination: {host: two, port: {number: 82}}}]}]}";
    check(
        &(service.to_owned() + &gateway("g", 80, "['*']") + &rules("v", spec)),
        "gateway:80 a.com",
        &["-> outbound|82||two.default.svc.cluster.local=1"],
    );
}
