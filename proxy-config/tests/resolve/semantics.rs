//! Rules between fields that people know from Istio and Knative, one table for each.

use crate::pieces::{HELLO, REVIEWS, check_findings, gateway, rules};
use crate::view::{clusters, findings, load_files, load_text, routes_at};
use proxy_config::load::{File, Loaded, Options};
use proxy_config::model::{
    AccessLogEncoding, Action, Config, Forward, HeaderOps, OutboundMode, PathNormalization, PathRewrite,
    Redirect, RedirectPort, Retry, Route, Tables,
};
use std::path::PathBuf;
use std::time::Duration;

/// Routes of the rules under `http` for the function `hello` on the mesh.
#[track_caller]
fn http(http: &str) -> Vec<Route> {
    let loaded = load_text(&(HELLO.to_owned() + &rules("v", &format!("{{hosts: [hello], http: {http}}}"))));
    assert!(!loaded.report.has_errors(), "{http}: {:#?}", findings(&loaded));
    mesh_routes(&loaded.config, "hello.default.svc.cluster.local")
}

fn mesh_routes(config: &Config, host: &str) -> Vec<Route> {
    let Some(Tables::ByPort(tables)) = config.listeners.last().map(|mesh| &mesh.tables) else {
        panic!("a mesh")
    };
    let found = tables[&80].hosts.iter().find(|h| h.domains.iter().any(|domain| domain == host));
    found.expect(host).routes.clone()
}

#[track_caller]
fn forward(rule: &str) -> Forward {
    match http(&format!("[{{route: [{{destination: {{host: hello}}}}], {rule}}}]")).remove(0).action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn redirect(rule: &str) -> Redirect {
    match http(&format!("[{{{rule}}}]")).remove(0).action {
        Action::Redirect(redirect) => redirect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn retries_absent_are_two_and_retries_empty_are_none() {
    let default = Retry::istio_default();
    assert_eq!(default.attempts, 2);
    for (rule, attempts, per_try) in [
        ("timeout: 1s", 2, None),
        ("retries: {}", 0, None),
        ("retries: {attempts: 0}", 0, None),
        ("retries: {attempts: 3}", 3, None),
        ("retries: {attempts: 1, perTryTimeout: 1.5s}", 1, Some(Duration::from_millis(1500))),
    ] {
        let retry = forward(rule).retry;
        assert_eq!((retry.attempts, retry.per_try_timeout), (attempts, per_try), "{rule}");
    }
    assert_eq!(forward("retries: {attempts: 3}").retry.on, default.on);
    let codes = forward("retries: {attempts: 1, retryOn: '503, connect-failure'}").retry;
    assert_eq!(codes.codes, [503]);
    assert!(!forward("retries: {attempts: 1, retryIgnorePreviousHosts: false}").retry.avoid_tried);
}

#[test]
fn lengths_of_time_are_at_least_a_millisecond_in_whole_ones() {
    let text = |rule: &str| {
        let spec =
            format!("{{hosts: [hello], http: [{{route: [{{destination: {{host: hello}}}}], {rule}}}]}}");
        HELLO.to_owned() + &rules("v", &spec)
    };
    for (written, meant) in [("1ms", 1), ("0.25s", 250), ("1m30s", 90_000), ("1h", 3_600_000)] {
        assert_eq!(
            forward(&format!("timeout: {written}")).timeout,
            Some(Duration::from_millis(meant)),
            "{written}"
        );
    }
    for wrong in ["0s", "-1s", "1", "0.5ms", "1.5ms", "soon", "1d", "''"] {
        for rule in [format!("timeout: {wrong}"), format!("retries: {{attempts: 1, perTryTimeout: {wrong}}}")]
        {
            let loaded = load_text(&text(&rule));
            assert!(loaded.report.has_errors(), "{rule}");
            assert_eq!(loaded.quarantined.len(), 1, "{rule}");
        }
    }
}

#[test]
fn nothing_behind_a_rule_for_every_request_is_reached_on_any_listener() {
    for all in ["", "match: [{uri: {prefix: /}}], ", "match: [{uri: {regex: '.*'}}], ", "match: [{}], "] {
        let http = format!(
            "[{{match: [{{uri: {{exact: /a}}}}], directResponse: {{status: 201}}}}, {{{all}directResponse: {{status: \
             202}}}}, {{match: [{{uri: {{exact: /b}}}}], directResponse: {{status: 203}}}}]"
        );
        let text = HELLO.to_owned()
            + &gateway("g", 80, "['*']")
            + &rules("v", &format!("{{hosts: [hello, a.com], gateways: [mesh, g], http: {http}}}"));
        let loaded = load_text(&text);
        assert!(findings(&loaded).iter().any(|line| line.contains("IST0130")), "{all}");
        for start in ["gateway:80 a.com", "mesh:80 hello.default.svc.cluster.local,"] {
            let lines = routes_at(&loaded.config, start);
            assert!(lines.len() == 2 && lines[1].ends_with("direct 202"), "{all}: {lines:#?}");
        }
    }
}

#[test]
fn weights_are_relative_and_those_of_nothing_get_nothing() {
    let hosts = ["hello", "b", "c"];
    let entry = |name: &str| HELLO.replace("hello", name);
    for (weights, shares) in [
        (&[1, 3][..], &[("hello", 1), ("b", 3)][..]),
        (&[90, 0, 10], &[("hello", 90), ("c", 10)]),
        (&[500, 500], &[("hello", 1), ("b", 1)]),
        (&[0], &[("hello", 1)]),
        (&[7], &[("hello", 1)]),
    ] {
        let route: Vec<String> = weights
            .iter()
            .zip(hosts)
            .map(|(weight, host)| format!("{{destination: {{host: {host}}}, weight: {weight}}}"))
            .collect();
        let spec = format!("{{hosts: [hello], http: [{{route: [{}]}}]}}", route.join(", "));
        let loaded = load_text(&(HELLO.to_owned() + &entry("b") + &entry("c") + &rules("v", &spec)));
        let route = mesh_routes(&loaded.config, "hello.default.svc.cluster.local").remove(0);
        let Action::Forward(forward) = route.action else { panic!("{weights:?}") };
        let got = forward.destinations.iter().map(|d| (d.written.as_str(), d.weight)).collect::<Vec<_>>();
        // Each is a split over one revision's hundred percent.
        let whole: u32 = got.iter().map(|(_, weight)| weight).sum();
        let sum: u32 = shares.iter().map(|(_, share)| share).sum();
        let expected: Vec<(&str, u32)> =
            shares.iter().map(|(name, share)| (*name, share * whole / sum)).collect();
        assert_eq!(got, expected, "{weights:?}");
    }
}

#[test]
fn a_written_path_takes_the_place_of_the_prefix_that_matched_else_of_the_whole_path() {
    let prefix = |len: usize, with: &str| PathRewrite::Prefix { from_len: len, with: with.to_owned() };
    let regex =
        |pattern: &str, with: &str| PathRewrite::Regex { pattern: pattern.to_owned(), with: with.to_owned() };
    for (rule, expected) in [
        ("match: [{uri: {prefix: /api}}], rewrite: {uri: /}", prefix(4, "/")),
        ("match: [{uri: {prefix: /api/}}], rewrite: {uri: /v1/}", prefix(5, "/v1/")),
        ("match: [{uri: {exact: /api}}], rewrite: {uri: /}", PathRewrite::Full("/".to_owned())),
        ("match: [{uri: {regex: '/a.*'}}], rewrite: {uri: /b}", PathRewrite::Full("/b".to_owned())),
        ("rewrite: {uri: /b}", PathRewrite::Full("/b".to_owned())),
        ("rewrite: {uriRegexRewrite: {match: '^/(a)', rewrite: '/\\1'}}", regex("^/(a)", "/\\1")),
    ] {
        assert_eq!(forward(rule).rewrite.path, Some(expected), "{rule}");
    }
    let both = forward("rewrite: {uri: /b, authority: other.example.com}").rewrite;
    assert_eq!(both.authority.as_deref(), Some("other.example.com"));
}

#[test]
fn a_redirect_changes_what_it_names() {
    let full = |path: &str| Some(PathRewrite::Full(path.to_owned()));
    let plain = redirect("redirect: {uri: /b}");
    assert_eq!((plain.path, plain.code, plain.authority, plain.port), (full("/b"), 301, None, None));
    for (rule, path) in [
        ("match: [{uri: {prefix: /a}}], redirect: {uri: /b}", full("/b")),
        (
            "match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b}",
            Some(PathRewrite::Prefix { from_len: 2, with: "/b".to_owned() }),
        ),
        ("redirect: {authority: x.example.com}", None),
    ] {
        assert_eq!(redirect(rule).path, path, "{rule}");
    }
    for (rule, port) in [
        ("redirect: {port: 8443}", RedirectPort::Number(8443)),
        ("redirect: {scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}", RedirectPort::FromProtocol),
        ("redirect: {scheme: https, derivePort: FROM_REQUEST_PORT}", RedirectPort::FromRequest),
    ] {
        assert_eq!(redirect(rule).port, Some(port), "{rule}");
    }
    for code in [301, 302, 303, 307, 308] {
        assert_eq!(redirect(&format!("redirect: {{uri: /b, redirectCode: {code}}}")).code, code);
    }
}

#[test]
fn headers_of_a_rule_and_of_a_destination_are_kept_apart() {
    let rule = "[{route: [{destination: {host: hello}, headers: {request: {set: {x-to: a}}, response: {remove: [server]}}}], \
                headers: {request: {add: {x-via: b}, remove: [cookie]}, response: {set: {x-by: c}}}}]";
    let Action::Forward(forward) = http(rule).remove(0).action else { panic!("a forward") };
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let HeaderOps { request, response } = forward.headers;
    assert_eq!((request.add, request.remove), (pair("x-via", "b"), vec!["cookie".to_owned()]));
    assert_eq!(response.set, pair("x-by", "c"));
    let own = &forward.destinations[0].headers;
    assert_eq!((&own.request.set, &own.response.remove), (&pair("x-to", "a"), &vec!["server".to_owned()]));
}

#[test]
fn a_direct_response_has_a_status_and_perhaps_a_body() {
    for (rule, status, body) in [
        ("{status: 503}", 503, ""),
        ("{status: 200, body: {string: hi}}", 200, "hi"),
        ("{status: 200, body: {bytes: aGk=}}", 200, "hi"),
    ] {
        let Action::Direct(direct) = http(&format!("[{{directResponse: {rule}}}]")).remove(0).action else {
            panic!("{rule}")
        };
        assert_eq!((direct.status, direct.body.as_slice()), (status, body.as_bytes()), "{rule}");
    }
}

#[test]
fn of_an_annotation_and_its_old_name_the_new_one_counts() {
    for (annotations, min) in [
        ("autoscaling.knative.dev/minScale: '2'", 2),
        ("autoscaling.knative.dev/minScale: '2', autoscaling.knative.dev/min-scale: '3'", 3),
        ("autoscaling.knative.dev/min-scale: '3', autoscaling.knative.dev/minScale: '2'", 3),
    ] {
        let text = HELLO.replace(
            "template: {spec",
            &format!("template: {{metadata: {{annotations: {{{annotations}}}}}, spec"),
        );
        let loaded = load_text(&text);
        assert_eq!(loaded.config.revisions[0].scale.min, min, "{annotations}");
        assert!(findings(&loaded)[0].contains("IST0002"), "{annotations}");
    }
}

const SERVED: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: TARGET}]}
---
";

fn pod(name: &str, labels: &str, status: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {labels}}}\nspec:\n  containers: [{{name: c, ports: \
         [{{name: web, containerPort: 8080}}]}}]\nstatus: {status}\n---\n"
    )
}

#[test]
fn a_service_without_endpoint_slices_has_the_addresses_of_its_pods() {
    let pods = pod("a", "{app: web, version: v1}", "{podIP: 10.0.0.1}")
        + &pod("b", "{app: web, version: v2}", "{podIPs: [{ip: 10.0.0.2}]}")
        + &pod("late", "{app: web}", "{podIP: 10.0.0.3, conditions: [{type: Ready, status: 'False'}]}")
        + &pod("new", "{app: web}", "{}")
        + &pod("other", "{app: shop}", "{podIP: 10.0.0.4}");
    for (target, port) in [("8080", 8080), ("web", 8080), ("9000", 9000)] {
        let loaded = load_text(&(SERVED.replace("TARGET", target) + &pods));
        assert_eq!(findings(&loaded), Vec::<String>::new(), "{target}");
        let expected = format!("outbound|80||web.default.svc.cluster.local: 10.0.0.1:{port} 10.0.0.2:{port}");
        assert_eq!(clusters(&loaded.config), [expected]);
    }
    let all = SERVED.replace("TARGET", "1").replace("selector:", "publishNotReadyAddresses: true, selector:");
    assert!(clusters(&load_text(&(all + &pods)).config)[0].ends_with("10.0.0.2:1 10.0.0.3:1"));
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: \
                 {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints: [{addresses: [10.9.9.9]}]\nports: \
                 [{name: http, port: 1}]\n---\n";
    let text = SERVED.replace("TARGET", "8080") + &pods + slice;
    assert!(clusters(&load_text(&text).config)[0].ends_with(": 10.9.9.9:1"));
}

#[test]
fn a_service_that_nothing_answers_for_is_told() {
    let web = SERVED.replace("TARGET", "8080");
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {selector: {matchLabels: {app: \
                      web}}, template: {metadata: {labels: {app: web}}, spec: {containers: []}}}\n---\n";
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec:\n  hosts: \
                 [web.default.svc.cluster.local]\n  resolution: STATIC\n  ports: [{number: 80, name: http}]\n  endpoints: \
                 [{address: 127.0.0.1, ports: {http: 9000}}]\n";
    let slice = |port: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, labels: \
             {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.0.0.1]}}]\nports: {port}\n"
        )
    };
    let external = web.replace("spec: {", "spec: {type: ExternalName, externalName: a.example.com, ");
    let function = web.clone() + &HELLO.replace("hello", "web");
    for (text, expected) in [
        (web.clone(), Some("no Pod with an address")),
        (web.clone() + deployment, Some("the Pods of Deployment default/web are not here")),
        (web.replace("selector: {app: web}, ", ""), Some("it has no selector")),
        (web.clone() + entry, None),
        (external, None),
        (function, None),
        (web.clone() + &slice("[{name: http, port: 1}]"), None),
        (web + &slice("[{name: grpc, port: 1}, {name: admin, port: 2}]"), Some("offers port \"http\"")),
    ] {
        let got = findings(&load_text(&text));
        match expected {
            None => assert_eq!(got, Vec::<String>::new(), "{text}"),
            Some(part) => {
                assert!(
                    got.len() == 1 && got[0].contains("SC044") && got[0].contains(part),
                    "{got:#?}\n{text}"
                );
            }
        }
    }
}

#[test]
fn a_service_entry_without_addresses_or_with_the_host_of_another_is_told() {
    let entry = |name: &str, rest: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  hosts: \
             [a.example.com]\n  resolution: STATIC\n  ports: [{{number: 80, name: http}}]\n{rest}---\n"
        )
    };
    let with = |address: &str| format!("  endpoints: [{{address: {address}}}]\n");
    let selector = "  workloadSelector: {labels: {app: web}}\n";
    let web = pod("a", "{app: web}", "{podIP: 10.0.0.1}");
    check_findings(&entry("e", ""), &["warning SC044 no endpoint is written"]);
    check_findings(&entry("e", selector), &["warning SC044 no Pod with an address"]);
    check_findings(&(entry("e", selector) + &web), &[]);
    let two = entry("b", &with("10.0.0.2")) + &entry("a", &with("10.0.0.3"));
    check_findings(&two, &["warning SC045 ServiceEntry default/b (a.yaml:1) has this host"]);
    assert_eq!(clusters(&load_text(&two).config), ["outbound|80||a.example.com: 10.0.0.2:80"]);
    check_findings(&two.replacen("number: 80", "number: 81", 1), &[]);
}

#[test]
fn the_mesh_settings_of_the_command_line_go_before_those_of_the_files_and_the_first_file_before_the_rest() {
    let map = |name: &str, domain: &str| {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-{name}}}\ndata:\n  mesh: |-\n    \
             trustDomain: {domain}\n    accessLogFile: /dev/stdout\n    accessLogEncoding: JSON\n    \
             outboundTrafficPolicy: {{mode: ALLOW_ANY}}\n    \
             pathNormalization: {{normalization: MERGE_SLASHES}}\n"
        );
        (format!("{name}.yaml"), text)
    };
    let files = [map("b", "second.example"), map("a", "first.example")];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let load = |options: &Options| -> Loaded { load_files(&files, options, None) };
    let found = load(&Options::default());
    assert_eq!(found.config.mesh.trust_domain, "first.example");
    assert_eq!(found.config.mesh.outbound, OutboundMode::AllowAny);
    assert_eq!(found.config.mesh.path_normalization, PathNormalization::MergeSlashes);
    assert_eq!(found.config.mesh.access_log.as_ref().map(|log| log.encoding), Some(AccessLogEncoding::Json));
    assert!(findings(&found)[0].contains("SC018"), "{:#?}", findings(&found));
    let file = File { path: PathBuf::from("mesh.yaml"), text: Ok("trustDomain: own.example".into()) };
    let given = load(&Options { mesh_file: Some(file), ..Options::default() });
    assert_eq!(given.config.mesh.trust_domain, "own.example");
    assert_eq!(given.config.mesh.outbound, OutboundMode::RegistryOnly);
    assert_eq!(given.config.mesh.path_normalization, PathNormalization::Base);
    assert_eq!(findings(&given).len(), 2, "neither of the two is used: {:#?}", findings(&given));
}

#[test]
fn what_limits_who_sees_or_uses_a_rule_is_told_because_it_does_not_act() {
    let spec = "{hosts: [reviews], exportTo: ['.'], http: [{route: [{destination: {host: reviews}}]}]}";
    check_findings(&(REVIEWS.to_owned() + &rules("v", spec)), &["warning SC007 limiting visibility"]);
}
