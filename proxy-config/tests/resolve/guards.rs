//! Whom policies select: who is asked what, at which level, and what becomes of policies with errors.

use crate::view::{findings, load_files, load_text};
use proxy_config::load::{Loaded, Options};
use proxy_config::model::{Guard, Mtls, PolicyAction};

/// One function in the shop, and entries beside it: with labels on the endpoint, with labels of its own, and
/// one outside.
const PLACES: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: till, namespace: shop}
spec: {template: {metadata: {labels: {tier: front}}, spec: {containers: [{image: x}]}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: stock, namespace: shop}
spec:
  hosts: [stock.example.com]
  ports: [{number: 80, name: http}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, labels: {app: stock}}, {address: 127.0.0.2, labels: {app: old-stock}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bills, namespace: shop, labels: {app: bills}}
spec:
  hosts: [bills.example.com]
  ports: [{number: 80, name: http}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.3}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bank, namespace: shop, labels: {app: bank}}
spec:
  hosts: [bank.example.com]
  location: MESH_EXTERNAL
  ports: [{number: 80, name: http}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
";

fn policy(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {spec}\n"
    )
}

fn load(policies: &[String]) -> Loaded {
    load_text(&(PLACES.to_owned() + &policies.concat()))
}

fn guard_of<'a>(loaded: &'a Loaded, cluster: &str) -> Option<&'a Guard> {
    let found = loaded.config.clusters.iter().find(|c| c.name == cluster).expect(cluster);
    let name = found.guard.as_ref()?;
    Some(loaded.config.guards.iter().find(|guard| guard.name == *name).expect(name))
}

/// Who of the places is asked something: T(ill), S(tock), B(ills), O(utside), G(ateway).
fn asked(loaded: &Loaded, asks: impl Fn(&Guard) -> bool) -> String {
    let places = [
        ('T', "outbound|80||till-00001.shop.svc.cluster.local"),
        ('S', "outbound|80||stock.example.com"),
        ('B', "outbound|80||bills.example.com"),
        ('O', "outbound|80||bank.example.com"),
    ];
    let mut who: String = places
        .iter()
        .filter(|(_, cluster)| guard_of(loaded, cluster).is_some_and(&asks))
        .map(|(letter, _)| *letter)
        .collect();
    let gateway = loaded.config.listeners[0].guard.as_ref();
    let guard = gateway.map(|name| loaded.config.guards.iter().find(|g| g.name == *name).expect(name));
    who.extend(guard.is_some_and(&asks).then_some('G'));
    who
}

#[test]
fn a_policy_concerns_the_workloads_that_it_selects() {
    let check = |namespace: &str, selection: &str, expected: &str| {
        for kind in ["AuthorizationPolicy", "RequestAuthentication"] {
            let rest = if kind == "AuthorizationPolicy" { "" } else { "jwtRules: [{issuer: a}]" };
            let text = policy(kind, namespace, "p", &format!("{{{selection}{rest}}}"));
            let loaded = load(&[text]);
            let got = asked(&loaded, |guard| !guard.policies.is_empty() || !guard.jwt.is_empty());
            assert_eq!(got, expected, "{kind} {namespace} {selection} {:?}", findings(&loaded));
        }
    };
    check("shop", "", "TSB");
    check("else", "", "");
    check("istio-system", "", "TSBG");
    check("shop", "selector: {matchLabels: {app: stock}},", "S");
    check("shop", "selector: {matchLabels: {app: old-stock}},", "S");
    check("shop", "selector: {matchLabels: {app: bills}},", "B");
    check("shop", "selector: {matchLabels: {app: bank}},", "O");
    check("shop", "selector: {matchLabels: {app: stock, tier: front}},", "");
    check("shop", "selector: {matchLabels: {tier: front}},", "T");
    check("shop", "selector: {matchLabels: {app: till-00001}},", "T");
    check("shop", "selector: {matchLabels: {serving.knative.dev/service: till}},", "T");
    check("shop", "selector: {matchLabels: {serving.knative.dev/configuration: till}},", "T");
    check("istio-system", "selector: {matchLabels: {tier: front}},", "T");
    check("else", "selector: {matchLabels: {tier: front}},", "");
    check("istio-system", "selector: {matchLabels: {istio: ingressgateway}},", "G");
    check("istio-system", "selector: {matchLabels: {app: istio-ingressgateway}},", "G");
    check("shop", "selector: {matchLabels: {istio: ingressgateway}},", "G");
    check("shop", "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: door}],", "G");
    check("shop", "targetRefs: [{kind: Service, name: till}],", "T");
    check("shop", "targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: bank}],", "O");
    check("else", "targetRefs: [{kind: Service, name: till}],", "");
    check("shop", "targetRef: {kind: Service, name: till},", "T");
}

#[test]
fn a_policy_with_errors_that_was_never_good_refuses_all_that_it_may_select() {
    let check = |text: &str, expected: &str| {
        let loaded = load(&[text.to_owned()]);
        assert_eq!(asked(&loaded, |guard| !guard.quarantined.is_empty()), expected, "{text}");
        assert!(loaded.report.has_errors(), "{text}");
    };
    let stock = "selector: {matchLabels: {app: stock}}";
    let ap = |spec: &str| policy("AuthorizationPolicy", "shop", "p", spec);
    // What it asks cannot be read, whom it asks can.
    check(&ap(&format!("{{{stock}, action: DENY}}")), "S");
    check(&ap(&format!("{{{stock}, rules: [{{from: []}}]}}")), "S");
    check(&ap(&format!("{{{stock}, rules: [{{from: [{{source: {{principle: [a]}}}}]}}]}}")), "S");
    check(&policy("PeerAuthentication", "shop", "p", &format!("{{{stock}, mtls: {{mode: STRIKT}}}}")), "S");
    // Whom it asks cannot be read either.
    check(&ap("{selector: {app: stock}}"), "TSBOG");
    check(&ap("{selectr: {matchLabels: {app: stock}}}"), "TSBOG");
    check(&ap("\nselector: {}\nrules: [{}]"), "TSBOG");
    check(&policy("PeerAuthentication", "shop", "p", ""), "TSBOG");
    check(&policy("AuthorizationPolcy", "shop", "p", "{}"), "TSBOG");
    check(&policy("PeerAuthentication", "else", "p", ""), "");
    check(&policy("PeerAuthentication", "istio-system", "p", ""), "TSBOG");
    check(&ap("{rules: [{to: [}"), "TSBOG");
    // Of two of one name only the first is used; the other may have asked for more.
    check(&(ap(&format!("{{{stock}, rules: [{{}}]}}")) + &ap(&format!("{{{stock}}}"))), "S");
}

#[test]
fn a_policy_that_was_good_once_stays_as_it_was() {
    let good = policy("AuthorizationPolicy", "shop", "p", "{action: DENY, rules: [{}]}");
    let bad = policy("AuthorizationPolicy", "shop", "p", "{action: DENY}");
    let places = ("a.yaml", PLACES);
    let first = load_files(&[places, ("p.yaml", &good)], &Options::default(), None);
    for text in [bad.as_str(), "kind: AuthorizationPolicy\n  x: [", &good.replace("spec", "spek")] {
        let then = load_files(&[places, ("p.yaml", text)], &Options::default(), Some(&first));
        assert_eq!(asked(&then, |guard| guard.policies.len() == 1), "TSB", "{text}");
        assert_eq!(asked(&then, |guard| !guard.quarantined.is_empty()), "", "{text}");
    }
}

#[test]
fn the_nearest_peer_authentication_that_says_something_counts() {
    let check = |policies: &[String], expected: &[(u16, Mtls)]| {
        let loaded = load(policies);
        let guard = guard_of(&loaded, "outbound|80||bills.example.com");
        let mtls = guard.map(|guard| guard.mtls.clone()).unwrap_or_default();
        for (port, mode) in expected {
            assert_eq!(mtls.at(*port), *mode, "{policies:?} {port}");
        }
        assert!(!asked(&loaded, |guard| guard.mtls != Default::default()).contains('G'));
    };
    let peer = |namespace: &str, name: &str, spec: &str| {
        policy("PeerAuthentication", namespace, name, &format!("{{{spec}}}"))
    };
    let bills = "selector: {matchLabels: {app: bills}}";
    let (mesh, home) =
        (peer("istio-system", "m", "mtls: {mode: STRICT}"), peer("shop", "n", "mtls: {mode: DISABLE}"));
    let (off, on) = (Mtls::Disable, Mtls::Strict);
    check(&[], &[(80, Mtls::Permissive)]);
    check(std::slice::from_ref(&mesh), &[(80, on)]);
    check(&[mesh.clone(), home.clone()], &[(80, off)]);
    check(&[home.clone(), peer("shop", "w", &format!("{bills}, mtls: {{mode: STRICT}}"))], &[(80, on)]);
    check(&[mesh.clone(), peer("shop", "n", "mtls: {mode: UNSET}")], &[(80, on)]);
    check(&[home.clone(), peer("shop", "w", &format!("{bills}, mtls: {{}}"))], &[(80, off)]);
    let ports = "portLevelMtls: {8080: {mode: PERMISSIVE}, 9090: {mode: UNSET}}";
    let own = peer("shop", "w", &format!("{bills}, mtls: {{mode: STRICT}}, {ports}"));
    check(&[home.clone(), own], &[(80, on), (8080, Mtls::Permissive), (9090, on)]);
    // One of the root namespace that selects concerns that namespace alone.
    check(
        &[peer("istio-system", "w", &format!("{bills}, mtls: {{mode: STRICT}}"))],
        &[(80, Mtls::Permissive)],
    );
    // The first of two.
    check(&[home.clone(), peer("shop", "a", "mtls: {mode: STRICT}")], &[(80, off)]);
    let two = load(&[home, peer("shop", "a", "mtls: {mode: STRICT}")]);
    assert!(findings(&two).iter().any(|line| line.contains("SC023")), "{:?}", findings(&two));
}

#[test]
fn another_root_namespace_holds_for_the_mesh() {
    let mesh =
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: \
                {mesh: 'rootNamespace: base'}\n"
            .to_owned();
    let all = |namespace: &str| policy("AuthorizationPolicy", namespace, "p", "{}");
    assert_eq!(asked(&load(&[mesh.clone(), all("base")]), |g| !g.policies.is_empty()), "TSBG");
    assert_eq!(asked(&load(&[mesh, all("istio-system")]), |g| !g.policies.is_empty()), "");
}

#[test]
fn policies_are_read_as_they_are_written() {
    let text = policy(
        "AuthorizationPolicy",
        "shop",
        "p",
        "
  action: DENY
  rules:
  - from:
    - source: {serviceAccounts: [till, far/away], notIpBlocks: [10.0.0.0/8, '::1']}
    - source: {principals: ['*/ns/shop/sa/x']}
    to: [{operation: {methods: [GET], notPaths: ['/a/{*}']}}]
    when:
    - {key: 'request.auth.claims[groups][inner]', notValues: [a]}
    - {key: source.serviceAccount, values: [till]}",
    )
    .replace("name: p,", "name: p, annotations: {istio.io/dry-run: 'true'},");
    let loaded = load(&[text]);
    let guard = guard_of(&loaded, "outbound|80||bills.example.com").expect("a guard");
    let policy = &guard.policies[0];
    assert!(policy.dry_run && policy.action == PolicyAction::Deny);
    let rule = &policy.rules[0];
    assert_eq!(rule.from[0].service_accounts.any, ["shop/till", "far/away"]);
    let blocks: Vec<String> =
        rule.from[0].ip_blocks.none.iter().map(|(ip, length)| format!("{ip}/{length}")).collect();
    assert_eq!(blocks, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(rule.from[1].principals.any, ["*/ns/shop/sa/x"]);
    assert_eq!(
        (&rule.to[0].methods.any[..], &rule.to[0].paths.none[..]),
        (&["GET".into()][..], &["/a/{*}".into()][..])
    );
    assert_eq!(
        (rule.when[0].values.none[0].as_str(), rule.when[1].values.any[0].as_str()),
        ("a", "shop/till")
    );
}

#[test]
fn a_provider_is_the_cluster_of_its_service_and_one_that_nobody_defines_fails_every_check() {
    let mesh = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: ask
      envoyExtAuthzHttp:
        {service: shop/stock.example.com, port: 80, timeout: 2s, includeHeadersInCheck: [X-A], statusOnError: '503'}
    - name: lost
      envoyExtAuthzGrpc: {service: nobody.example.com, port: 81, failOpen: true}
";
    let custom = |provider: &str| {
        let spec = format!("{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}");
        policy("AuthorizationPolicy", "shop", provider, &spec)
    };
    let loaded = load(&[mesh.to_owned(), custom("ask"), custom("none")]);
    let found: Vec<String> = loaded
        .config
        .ext_authz
        .iter()
        .map(|p| {
            format!(
                "{} {} {} {:?} {} {}",
                p.name, p.grpc, p.cluster, p.timeout, p.status_on_error, p.fail_open
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "ask false outbound|80||stock.example.com 2s 503 false",
            "lost true outbound|81||nobody.example.com 600s 403 true",
            "none false  600s 403 false",
        ]
    );
    let errors: Vec<String> = findings(&loaded).into_iter().filter(|f| f.contains("IST0101")).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
}

/// Policies as articles have them, about names of our own.
#[test]
fn policies_of_articles_are_taken_as_they_are_written_and_what_is_odd_is_said() {
    let check = |text: &str, expected: &[&str]| {
        let loaded = load(&[text.to_owned()]);
        let mut codes: Vec<&str> = loaded.report.shown().map(|problem| problem.code).collect();
        codes.dedup();
        assert_eq!(codes, expected, "{text} {}", loaded.report.text());
        loaded
    };
    // Of the whole namespace; of a workload by a name that Knative gives nobody.
    let strict = check(&policy("PeerAuthentication", "shop", "default", "{mtls: {mode: STRICT}}"), &[]);
    assert_eq!(asked(&strict, |guard| guard.mtls.mode == Mtls::Strict), "TSB");
    let off = "{selector: {matchLabels: {app: till}}, mtls: {mode: DISABLE}}";
    check(&policy("PeerAuthentication", "shop", "off", off), &["IST0127"]);
    // Two rules where one was meant: anybody may pay.
    let pay = "
  selector: {matchLabels: {app: bills}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/payer]}}]
  - to: [{operation: {methods: [POST], paths: [/pay]}}]";
    let loaded = check(&policy("AuthorizationPolicy", "shop", "pay", pay), &["SC020"]);
    let guard = guard_of(&loaded, "outbound|80||bills.example.com").expect("a guard");
    assert_eq!(guard.policies[0].rules.len(), 2);
    assert!(guard.policies[0].rules[1].from.is_empty());
    // A claim that no token can have, as none is verified; and with somebody who verifies.
    let claims = "
  selector: {matchLabels: {app: stock}}
  rules:
  - from: [{source: {requestPrincipals: ['*']}}]
    when: [{key: 'request.auth.claims[iss]', values: ['https://id.example.com']}]";
    let claims = policy("AuthorizationPolicy", "shop", "claims", claims);
    check(&claims, &["SC021"]);
    let verify = |app: &str| {
        let spec = format!(
            "{{selector: {{matchLabels: {{app: {app}}}}}, jwtRules: [{{issuer: 'https://id.example.com', jwksUri: \
             'https://id.example.com/keys'}}]}}"
        );
        policy("RequestAuthentication", "shop", "verify", &spec)
    };
    let both = check(&(claims.clone() + &verify("stock")), &[]);
    assert_eq!(asked(&both, |guard| guard.jwt.len() == 1 && guard.policies.len() == 1), "S");
    check(&(claims + &verify("bills")), &["SC021"]);
    // The gateway, looked for where it is not.
    let gateway = "{rules: [{from: [{source: {principals: \
                   [cluster.local/ns/shop/sa/istio-ingressgateway-service-account]}}]}]}";
    let loaded = check(&policy("AuthorizationPolicy", "shop", "front", gateway), &["SC022"]);
    assert!(loaded.report.text().contains("/ns/istio-system/sa/"), "{}", loaded.report.text());
    // Two whole rules, by namespace.
    let by_namespace = "
  selector: {matchLabels: {tier: front}}
  rules:
  - {from: [{source: {namespaces: [web]}}], to: [{operation: {methods: [POST], paths: [/orders]}}]}
  - {from: [{source: {namespaces: [back]}}], to: [{operation: {methods: [GET, PUT], paths: ['/orders/*']}}]}";
    let loaded = check(&policy("AuthorizationPolicy", "shop", "rbac", by_namespace), &[]);
    assert_eq!(asked(&loaded, |guard| guard.policies.len() == 1), "T");
}
