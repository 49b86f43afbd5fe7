//! What is said about trust that is written and hardly meant: TLS that nobody takes, policies that keep everybody out.

use crate::view::load_text;

const BILLS: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bills, namespace: parcels}
spec:
  hosts: [bills.parcels.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: http-two, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {http: 8080, http-two: 8443}, labels: {app: bills}}]
---
";

/// An object of the parcels; `spec` in flow style.
fn object(kind: &str, name: &str, spec: &str) -> String {
    let group = if kind == "DestinationRule" { "networking" } else { "security" };
    format!(
        "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: parcels}}\nspec: \
         {spec}\n---\n"
    )
}

/// All that is said about an object with one of these codes, infos too: level, code, path, message, help.
fn said(text: &str, codes: &[&str]) -> Vec<String> {
    let loaded = load_text(text);
    let told = loaded.report.problems().iter().filter(|problem| codes.contains(&problem.code));
    told.map(|p| {
        let help = p.help.as_deref().map_or(String::new(), |help| format!(" | {help}"));
        format!("{} {} {}: {}{help}", p.level.as_str(), p.code, p.path, p.message)
    })
    .collect()
}

#[track_caller]
fn check(text: &str, codes: &[&str], wanted: &[&str]) {
    let got = said(text, codes);
    let fits = got.len() == wanted.len()
        && got.iter().zip(wanted).all(|(got, wanted)| wanted.split('…').all(|part| got.contains(part)));
    assert!(fits, "{text}\ngot {got:#?}\nwanted {wanted:#?}");
}

#[test]
fn tls_that_the_destination_refuses_is_said() {
    let peer = |mode: &str| object("PeerAuthentication", "all", &format!("{{mtls: {{mode: {mode}}}}}"));
    let rule = |policy: &str| {
        object(
            "DestinationRule",
            "outside",
            &format!("{{host: bills.parcels.svc.cluster.local, trafficPolicy: {policy}}}"),
        )
    };
    let at_443 = "{portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE, sni: pay.example.com}}]}";
    let strict = "warning IST0113 spec.trafficPolicy.portLevelSettings[0].tls: PeerAuthentication asks STRICT of \
                  \"bills.parcels.svc.cluster.local\", and callers of its port 443 speak SIMPLE: they are refused | \
                  \"pay.example.com\" is called by a ServiceEntry of its own…";
    let off_at_443 = object(
        "PeerAuthentication",
        "own",
        "{selector: {matchLabels: {app: bills}}, mtls: {mode: STRICT}, portLevelMtls: {8443: {mode: DISABLE}}}",
    );
    let plain = "{tls: {mode: DISABLE}}";
    let mutual = "{tls: {mode: ISTIO_MUTUAL}}";
    for (peer, policy, wanted) in [
        (peer("STRICT"), at_443, &[strict][..]),
        (peer("PERMISSIVE"), at_443, &[]),
        (peer("STRICT"), plain, &["asks STRICT…port 80 speak DISABLE…write ISTIO_MUTUAL"]),
        (peer("STRICT"), mutual, &[]),
        (
            peer("DISABLE"),
            mutual,
            &["spec.trafficPolicy.tls: …asks DISABLE…speak ISTIO_MUTUAL…write DISABLE"],
        ),
        (peer("DISABLE"), plain, &[]),
        (off_at_443.clone(), at_443, &[]),
        (off_at_443, mutual, &["asks DISABLE…port 443"]),
        (String::new(), mutual, &[]),
    ] {
        check(&(BILLS.to_owned() + &peer + &rule(policy)), &["IST0113"], wanted);
    }
    // Of what is not in the mesh nothing is asked.
    let outside = BILLS.replace("MESH_INTERNAL", "MESH_EXTERNAL");
    check(&(outside + &peer("STRICT") + &rule(at_443)), &["IST0113"], &[]);
}

#[test]
fn mutual_tls_of_the_mesh_that_goes_in_plaintext_to_something_outside_is_a_warning() {
    let rule = |spec: &str| {
        object("DestinationRule", "r", &format!("{{host: bills.parcels.svc.cluster.local, {spec}}}"))
    };
    let outside = BILLS.replace("MESH_INTERNAL", "MESH_EXTERNAL");
    let whole = "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}";
    let others = "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 80}, tls: {mode: \
                  SIMPLE}}, {port: {number: 443}, tls: {mode: SIMPLE}}]}";
    let at_443 = "trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL}}]}";
    let subset = "subsets: [{name: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]";
    let told = "\"bills.parcels.svc.cluster.local\" is outside the mesh, and `run` speaks to it in plaintext | write SIMPLE";
    let warning = |path: &str| format!("warning SC007 {path}: …{told}");
    let info = "info SC007 spec.trafficPolicy.tls: …one process that plays both";
    for (text, spec, wanted) in [
        (&outside, whole, warning("spec.trafficPolicy.tls")),
        (&outside, at_443, warning("spec.trafficPolicy.portLevelSettings[0].tls")),
        (&outside, subset, warning("spec.subsets[0].trafficPolicy.tls")),
        (&outside, others, info.to_owned()),
        (&BILLS.to_owned(), whole, info.to_owned()),
    ] {
        check(&(text.clone() + &rule(spec)), &["SC007"], &[&wanted]);
    }
    let plain = rule("trafficPolicy: {tls: {mode: DISABLE}}");
    check(&(outside.clone() + &plain), &["SC007"], &[]);
    let loaded = load_text(&(outside + &rule(whole)));
    let said = loaded.report.problems().iter().find(|problem| problem.code == "SC007").unwrap();
    assert_eq!((said.file.to_str(), said.at.line), (Some("a.yaml"), 15), "{said:?}");
}

#[test]
fn a_workload_that_lets_in_nobody_but_itself_is_said() {
    let policy = |name: &str, accounts: &str| {
        let rule = format!("{{from: [{{source: {{principals: [{accounts}]}}}}]}}");
        object(
            "AuthorizationPolicy",
            name,
            &format!("{{selector: {{matchLabels: {{app: bills}}}}, rules: [{rule}]}}"),
        )
    };
    let own = "cluster.local/ns/parcels/sa/bills-account";
    let said = "warning SC022 spec.rules[0].from[0].source.principals[0]: bills lets in nobody but itself…\
                istio-ingressgateway-service-account";
    for (text, wanted) in [
        (policy("a", own), &[said][..]),
        (policy("a", "cluster.local/ns/parcels/sa/billsorter"), &[]),
        (policy("a", "cluster.local/ns/other/sa/bills-account"), &[]),
        (policy("a", &format!("{own}, cluster.local/ns/parcels/sa/desk")), &[]),
        (policy("a", own) + &policy("b", "cluster.local/ns/parcels/sa/desk"), &[]),
        (policy("a", own).replace("rules: [", "rules: [{to: [{operation: {methods: [GET]}}]}, "), &[]),
        (policy("a", own).replace("spec: {", "spec: {action: DENY, "), &[]),
    ] {
        check(&(BILLS.to_owned() + &text), &["SC022"], wanted);
    }
}

#[test]
fn what_is_merely_worth_knowing_about_trust_is_told_to_those_who_ask() {
    let tokens = |issuer: &str| {
        object(
            "RequestAuthentication",
            "r",
            &format!("{{jwtRules: [{{issuer: '{issuer}', jwksUri: 'https://k.example.com/'}}]}}"),
        ) + &object(
            "AuthorizationPolicy",
            "p",
            "{rules: [{when: [{key: 'request.auth.claims[groups]', values: [staff]}]}]}",
        )
    };
    let said = "info SC021 spec.rules[0].when[0].key: tokens of accounts.google.com have no claim";
    check(&tokens("https://accounts.google.com"), &["SC021"], &[said]);
    check(&tokens("https://id.example.com"), &["SC021"], &[]);
    let strict = object("PeerAuthentication", "default", "{mtls: {mode: STRICT}}");
    check(&strict, &["SC026"], &["info …it holds for namespace parcels…istio-system"]);
    check(&strict.replace("namespace: parcels", "namespace: istio-system"), &["SC026"], &[]);
    let off = "{selector: {matchLabels: {app: bills}}, mtls: {mode: DISABLE}}";
    check(
        &object("PeerAuthentication", "off", off),
        &["SC026"],
        &["info …PERMISSIVE takes plaintext and mutual"],
    );
    let gateway = |redirect: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
             servers:\n  - {{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*.example.org']{redirect}}}\n  - port: \
             {{number: 443, name: https, protocol: HTTPS}}\n    hosts: [shop.example.org]\n    tls: {{mode: SIMPLE, \
             credentialName: shop}}\n---\n"
        )
    };
    check(&gateway(""), &["SC025"], &["info SC025 spec.servers[0]: …httpsRedirect"]);
    check(&gateway(", tls: {httpsRedirect: true}"), &["SC025"], &[]);
}

#[test]
fn what_is_believed_of_who_came_before_is_for_the_mesh_to_say_and_for_pods() {
    use proxy_config::load::{Options, Sidecar};
    use proxy_config::model::{ClientCert, Workload};
    let mesh = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultConfig:
      gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: APPEND_FORWARD}
      proxyHeaders: {forwardedClientCert: SANITIZE_SET, attemptCount: {disabled: true}}
---
";
    let gateway = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: parcels}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
";
    let pods = |labels: &str, text: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d, namespace: parcels}}\nspec:\n  selector: \
             {{matchLabels: {{{labels}}}}}\n  template:\n    metadata:\n      labels: {{{labels}, more: x}}\n      \
             annotations:\n        proxy.istio.io/config: |\n          {text}\n    spec: {{containers: [{{name: c, image: \
             i}}]}}\n---\n"
        )
    };
    let at_gateway = |text: &str| {
        let forwarding = load_text(&(gateway.to_owned() + text)).config.listeners[0].forwarding;
        (forwarding.client_cert, forwarding.trusted_proxies)
    };
    let own = pods("istio: edge", "gatewayTopology: {numTrustedProxies: 1}");
    assert_eq!(at_gateway(""), (ClientCert::SanitizeSet, 0));
    assert_eq!(at_gateway(mesh), (ClientCert::AppendForward, 2));
    assert_eq!(at_gateway(&(mesh.to_owned() + &own)), (ClientCert::AppendForward, 1));
    assert_eq!(at_gateway(&own.replace("istio: edge", "istio: other")), (ClientCert::SanitizeSet, 0));
    let beside = |text: &str| {
        let labels = [("app", "bills"), ("more", "x")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let workload = Workload {
            namespace: "parcels".to_owned(),
            name: "bills".to_owned(),
            service_account: "default".to_owned(),
            labels: labels.into(),
        };
        let address = "127.0.0.1:1".parse().unwrap();
        let sidecar = Some(Sidecar { workload, apps: vec![address], inbound: address });
        let options = Options { sidecar, ..Options::default() };
        let loaded = crate::view::load_files(&[("a.yaml", text)], &options, None);
        let modes = loaded.config.listeners.iter().map(|listener| listener.forwarding.client_cert);
        (modes.collect::<Vec<_>>(), loaded.report.text())
    };
    let own = |mode: &str| pods("app: bills", &format!("proxyHeaders: {{forwardedClientCert: {mode}}}"));
    for (text, inbound) in [
        (BILLS.to_owned(), ClientCert::AppendForward),
        (mesh.to_owned(), ClientCert::SanitizeSet),
        (mesh.to_owned() + &own("ALWAYS_FORWARD_ONLY"), ClientCert::AlwaysForwardOnly),
        (mesh.to_owned() + &own("UNDEFINED"), ClientCert::SanitizeSet),
        (own("FORWARD_ONLY").replace("app: bills", "app: desk"), ClientCert::AppendForward),
    ] {
        assert_eq!(beside(&text).0, [inbound, ClientCert::Sanitize], "{text}");
    }
    let said = beside(&own("FORWARD")).1;
    assert!(said.contains("\"FORWARD\" is no such mode"), "{said}");
    let said = beside(&pods("app: bills", "a: [")).1;
    assert!(said.contains("it is not YAML"), "{said}");
    let said = beside(mesh).1;
    assert!(said.contains("proxyHeaders.attemptCount"), "what does not act is said: {said}");
}
