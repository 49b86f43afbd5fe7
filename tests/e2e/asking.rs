//! CUSTOM policies with a provider that is asked over HTTP, and the audit stream.

use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, Reply, seconds, yaml};
use std::net::SocketAddr;

/// The provider `door` at `address`; `more` is what else MeshConfig says of it.
fn provider(address: SocketAddr, more: &str) -> String {
    yaml::service_entry("authz.test", "HTTP", &[address])
        + &format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
             extensionProviders:\n    - name: door\n      envoyExtAuthzHttp: {{service: authz.test, port: 80{more}}}\n---\n"
        )
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: custom, annotations: \
         {{}}}}\nspec: {spec}\n---\n"
    )
}

const ASK_ABOUT_PRIVATE: &str = "{action: CUSTOM, provider: {name: door}, selector: {matchLabels: {app: shop}}, rules: [{to: [{operation: {paths: [/private/*]}}]}]}";

/// An entry that the policy selects.
fn shop(address: SocketAddr) -> String {
    yaml::all_to("HTTP", &[address])
        .replace("metadata: {name: upstream-test}", "metadata: {name: upstream-test, labels: {app: shop}}")
}

#[test]
fn a_provider_decides_about_what_its_policy_matches() {
    let door = Origin::h1().answer(|seen| match seen.header("authorization") {
        "yes" => Reply::text("").header("x-user", "ann").header("x-secret", "1").header("set-cookie", "s=1"),
        "login" => Reply::status(302).header("location", "/login").header("x-why", "no session"),
        "broken" => Reply::status(500),
        "slow" => Reply::text("").after(seconds(5)),
        _ => Reply::status(401),
    });
    let origin = Origin::h1().reply("ok");
    let terms = ", timeout: 1s, pathPrefix: /check, includeRequestHeadersInCheck: [x-a], headersToUpstreamOnAllow: \
                 [x-user], headersToDownstreamOnAllow: [set-cookie], statusOnError: '503'";
    let text = shop(origin.address()) + &provider(door.address(), terms) + &policy(ASK_ABOUT_PRIVATE);
    let proxy = Proxy::with(text).start();
    proxy.get("/public").send().expect(200);
    assert_eq!(door.hits(), 0, "nobody is asked about what the policy does not match");
    let ask = |who: &str| proxy.get("/private/x?q=1").header("authorization", who).header("x-user", "root");
    let answer = ask("yes").header("x-a", "1").header("x-b", "2").send().expect(200);
    assert_eq!(answer.header("set-cookie"), "s=1");
    let seen = origin.last();
    assert_eq!((seen.header("x-user"), seen.header("x-secret")), ("ann", ""));
    let asked = door.last();
    assert_eq!((asked.method.as_str(), asked.uri.to_string()), ("GET", "/check/private/x?q=1".to_owned()));
    assert_eq!((asked.header("x-a"), asked.header("x-b"), asked.header("content-length")), ("1", "", "0"));
    assert_eq!(asked.header("host"), seen.header("host"));
    let hits = origin.hits();
    let login = ask("login").send().expect(302);
    assert_eq!((login.header("location"), login.header("x-why")), ("/login", "no session"));
    proxy.access_line(&["/private/x", " 302 UAEX ext_authz_denied"]);
    ask("broken").send().expect(503);
    let slow = ask("slow").send().expect(503);
    assert!(slow.took < seconds(4), "{:?}", slow.took);
    proxy.access_line(&["/private/x", " 503 UAEX ext_authz_error"]);
    assert_eq!(origin.hits(), hits, "nothing of it reached the destination");
}

#[test]
fn a_provider_that_cannot_be_asked_refuses_unless_it_may_fail_open() {
    let origin = Origin::h1().reply("ok");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for (more, status) in [(", timeout: 1s", 403), (", timeout: 1s, failOpen: true", 200)] {
        let text = shop(origin.address()) + &provider(nobody, more) + &policy(ASK_ABOUT_PRIVATE);
        let proxy = Proxy::with(text).start();
        proxy.get("/private/x").send().expect(status);
        proxy.get("/public").send().expect(200);
    }
    let unknown = ASK_ABOUT_PRIVATE.replace("door", "nobody");
    let proxy = Proxy::with(shop(origin.address()) + &policy(&unknown)).start();
    proxy.get("/private/x").send().expect(403);
}

#[test]
fn a_provider_sees_as_much_of_the_body_as_it_is_to_and_the_destination_all_of_it() {
    let door = Origin::h1().answer(|_| Reply::text(""));
    let origin = Origin::h1().reply("ok");
    for (partial, large) in [(true, 200), (false, 413)] {
        let body =
            format!(", includeRequestBodyInCheck: {{maxRequestBytes: 10, allowPartialMessage: {partial}}}");
        let text = shop(origin.address()) + &provider(door.address(), &body) + &policy(ASK_ABOUT_PRIVATE);
        let proxy = Proxy::with(text).start();
        proxy.post("/private/x", "short").send().expect(200);
        assert_eq!((&door.last().body[..], &origin.last().body[..]), (&b"short"[..], &b"short"[..]));
        let long = vec![b'x'; 300_000];
        proxy.post("/private/x", long.clone()).send().expect(large);
        if partial {
            assert_eq!((door.last().body.len(), origin.last().body.len()), (10, long.len()));
            assert_eq!(door.last().header("x-envoy-auth-partial-body"), "true");
        }
    }
}

#[test]
fn a_provider_that_is_a_function_is_woken_and_what_it_guards_is_not() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                extensionProviders:\n    - name: door\n      envoyExtAuthzHttp: {service: door.default.svc.cluster.local, \
                port: 80, timeout: 20s, pathPrefix: '/?status=401&x='}\n---\n";
    let deny = "{action: CUSTOM, provider: {name: door}, selector: {matchLabels: {serving.knative.dev/service: \
                shop}}, rules: [{}]}";
    let text = yaml::function("shop", "", "") + &yaml::function("door", "", "") + mesh + &policy(deny);
    let proxy = Proxy::with(text).start();
    proxy.get("/").host("shop.default.localhost").timeout(seconds(30)).send().expect(401);
    let starts = |function: &str| {
        proxy
            .metrics()
            .sum("pilotlight_cold_starts_total", &[("function", &format!("default/{function}-00001"))])
    };
    assert_eq!(starts("shop"), 0.0);
}

#[test]
fn the_audit_stream_tells_who_was_refused_and_what_changed() {
    let origin = Origin::h1().reply("ok");
    let policies = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: never}\nspec: {action: \
                    DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}\n---\napiVersion: security.istio.io/v1\nkind: \
                    AuthorizationPolicy\nmetadata: {name: watch}\nspec: {action: AUDIT, rules: [{to: [{operation: {methods: \
                    [POST]}}]}]}\n---\n";
    let place = crate::support::proxy::Directory::new();
    let file = place.path().join("audit.jsonl");
    let text = yaml::all_to("HTTP", &[origin.address()]) + policies;
    let proxy = Proxy::with(&text).args(["--audit-log", file.to_str().unwrap()]).start();
    proxy.get("/secret?token=hidden").header("x-request-id", "id-1").send().expect(403);
    proxy.post("/open", "x").send().expect(200);
    proxy.admin().post("/logging?level=debug", "").send().expect(200);
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    let has = |parts: &[&str]| read().lines().any(|line| parts.iter().all(|part| line.contains(part)));
    let denied =
        ["\"event\":\"denied\"", "ns[default]-policy[never]-rule[0]", "\"path\":\"/secret\"", "id-1", "403"];
    let audited = ["\"event\":\"audited\"", "ns[default]-policy[watch]-rule[0]", "\"path\":\"/open\""];
    for wanted in [
        &denied[..],
        &audited,
        &["\"event\":\"reload\"", "\"generation\":1"],
        &["\"event\":\"admin\"", "/logging"],
    ] {
        assert!(becomes_true(seconds(5), || has(wanted)), "{wanted:?}\n{}", read());
    }
    proxy.write("config.yaml", &(text + "# changed\n" + &yaml::service_entry("more.test", "HTTP", &[])));
    assert!(becomes_true(seconds(5), || has(&["\"event\":\"reload\"", "\"generation\":2"])), "{}", read());
    assert!(!read().contains("hidden"), "a query may hold a secret");
    for line in read().lines() {
        let _: serde_json::Value = serde_json::from_str(line).unwrap();
    }
}
