//! Policies and tokens on the way of real requests: who passes, what the others get, and that nothing wakes for them.

use crate::support::tokens::Issuer;
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, Reply, Request, Target, seconds, yaml};
use serde_json::json;

/// A security object in the default namespace; `spec` in flow style.
fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

fn policy(name: &str, spec: &str) -> String {
    object("AuthorizationPolicy", name, spec)
}

/// Tokens of `issuer` are looked at everywhere; `more` is what else the rule says.
fn authentication(issuer: &Issuer, more: &str) -> String {
    let jwks = issuer.jwks();
    object("RequestAuthentication", "tokens", &format!("{{jwtRules: [{{issuer: i, jwks: '{jwks}'{more}}}]}}"))
}

fn function(proxy: &Proxy, path: &str) -> Request {
    proxy.get(path).host("shop.default.localhost")
}

#[test]
fn a_policy_refuses_before_a_function_is_woken() {
    let allow = policy("readers", "{rules: [{to: [{operation: {methods: [GET], paths: [/open/*]}}]}]}");
    let deny = policy("never", "{action: DENY, rules: [{to: [{operation: {paths: [/open/secret]}}]}]}");
    let proxy = Proxy::with(yaml::function("shop", "", "") + &allow + &deny).start();
    let none = "rbac_access_denied_matched_policy[none]";
    let by = "rbac_access_denied_matched_policy[ns[default]-policy[never]-rule[0]]";
    for (path, details) in
        [("/closed", none), ("/open/secret", by), ("/x/../open/%73ecret", by), ("/open", none)]
    {
        let answer = function(&proxy, path).send().expect(403);
        assert_eq!(answer.text(), "RBAC: access denied");
        proxy.access_line(&[path, " 403 - ", details]);
    }
    let grpc = function(&proxy, "/closed").header("content-type", "application/grpc").send().expect(200);
    assert_eq!((grpc.header("grpc-status"), grpc.header("grpc-message")), ("7", "RBAC: access denied"));
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("pilotlight_faults_total", &[("fault", "Forbidden")]), 5.0);
    let refused =
        [("response_code", "403"), ("reporter", "destination"), ("destination_workload", "shop-00001")];
    assert_eq!(metrics.sum("istio_requests_total", &refused), 5.0);
    assert_eq!(metrics.sum("pilotlight_cold_starts_total", &[]), 0.0, "nothing was woken");
    function(&proxy, "/open/x").send().expect(200);
    assert_eq!(proxy.metrics().sum("pilotlight_cold_starts_total", &[]), 1.0);
}

#[test]
fn a_token_decides_and_what_is_wrong_with_it_is_said() {
    let issuer = Issuer::new("k1");
    let allow = policy("mine", "{rules: [{from: [{source: {requestPrincipals: ['i/ann']}}]}]}");
    let rules = authentication(&issuer, ", audiences: [shop]");
    let proxy = Proxy::with(yaml::function("shop", "", "") + &rules + &allow).start();
    let with =
        |token: &str| function(&proxy, "/p?q=1").header("authorization", &format!("Bearer {token}")).send();
    let ann = |aud: &str| json!({"iss": "i", "sub": "ann", "aud": aud});
    let missing = function(&proxy, "/").send().expect(403);
    assert_eq!(missing.text(), "RBAC: access denied");
    let other = Issuer::new("k1");
    for (token, status, text) in [
        (
            "x.y".to_owned(),
            401,
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (issuer.token_until(-100, ann("shop")), 401, "Jwt is expired"),
        (other.token(ann("shop")), 401, "Jwt verification fails"),
        (issuer.token(json!({"iss": "j", "sub": "ann"})), 401, "Jwt issuer is not configured"),
        (issuer.token(ann("bank")), 403, "Audiences in Jwt are not allowed"),
    ] {
        let answer = with(&token).expect(status);
        assert_eq!(answer.text(), text);
        let realm = "Bearer realm=\"http://shop.default.localhost/p\", error=\"invalid_token\"";
        assert_eq!(answer.header("www-authenticate"), realm);
        proxy.access_line(&[&format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"))]);
    }
    assert_eq!(proxy.metrics().sum("pilotlight_cold_starts_total", &[]), 0.0, "nothing was woken");
    let stranger = issuer.token(json!({"iss": "i", "sub": "bob", "aud": "shop"}));
    assert_eq!(with(&stranger).expect(403).text(), "RBAC: access denied");
    let good = issuer.token(ann("shop"));
    with(&good).expect(200);
    let grpc =
        function(&proxy, "/").header("content-type", "application/grpc").header("authorization", "Bearer x");
    assert_eq!(grpc.send().expect(200).header("grpc-status"), "16");
    let before = proxy.metrics().sum("pilotlight_jwt_remembered_total", &[]);
    let mut connection = proxy.front().connect();
    for _ in 0..3 {
        let request = function(&proxy, "/").header("authorization", &format!("Bearer {good}"));
        connection.send(request).expect(200);
    }
    assert!(proxy.metrics().sum("pilotlight_jwt_remembered_total", &[]) >= before + 2.0);
}

#[test]
fn claims_go_on_in_fields_that_clients_cannot_write_and_the_token_does_not() {
    let issuer = Issuer::new("k1");
    let origin = Origin::h1().reply("ok");
    let claims = ", outputPayloadToHeader: x-payload, outputClaimToHeaders: [{header: x-who, claim: sub}]";
    let text = authentication(&issuer, claims) + &yaml::all_to("HTTP", &[origin.address()]);
    let proxy = Proxy::with(text).start();
    let token = issuer.token(json!({"iss": "i", "sub": "ann"}));
    proxy.get("/").header("x-who", "root").header("x-payload", "forged").send().expect(200);
    let seen = origin.last();
    assert!(
        !seen.headers.contains_key("x-who") && !seen.headers.contains_key("x-payload"),
        "{:?}",
        seen.headers
    );
    proxy
        .get("/")
        .header("x-who", "root")
        .header("authorization", &format!("Bearer {token}"))
        .send()
        .expect(200);
    let seen = origin.last();
    assert_eq!((seen.header("x-who"), seen.header("authorization")), ("ann", ""));
    assert_eq!(seen.header("x-payload"), token.split('.').nth(1).unwrap());
    proxy.get(&format!("/p?a=1&access_token={token}&b=2")).send().expect(200);
    assert_eq!(origin.last().uri.to_string(), "/p?a=1&b=2");
    // A browser's question beforehand carries no token, and is not asked for one.
    let preflight = proxy.front().request(http::Method::OPTIONS, "/").header("origin", "http://a");
    preflight
        .header("access-control-request-method", "PUT")
        .header("authorization", "Bearer x")
        .send()
        .expect(200);
}

#[test]
fn a_policy_with_errors_that_was_never_good_refuses_everything_until_it_is() {
    let origin = Origin::h1().reply("ok");
    let broken = policy("p", "{action: DENI, rules: [{}]}");
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).file("p.yaml", &broken).start();
    assert_eq!(proxy.get("/").send().expect(403).text(), "RBAC: access denied");
    assert_eq!(proxy.metrics().sum("pilotlight_faults_total", &[("fault", "PolicyUnusable")]), 1.0);
    proxy.write("p.yaml", &policy("p", "{rules: [{}]}"));
    assert!(becomes_true(seconds(5), || proxy.get("/").send().status == 200), "the policy is good");
    proxy.write("p.yaml", &policy("p", "{}"));
    assert!(becomes_true(seconds(5), || proxy.get("/").send().status == 403), "nothing is allowed");
    assert_eq!(
        origin.hits(),
        proxy.metrics().sum("istio_requests_total", &[("response_code", "200")]) as usize
    );
}

#[test]
fn a_policy_of_the_gateway_is_asked_before_routes() {
    let origin = Origin::h1().reply("ok");
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  \
                   selector: {istio: ingressgateway}\n  servers: [{port: {number: 8080, name: http, \
                   protocol: HTTP}, hosts: ['*']}]\n---\n";
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: front, \
                namespace: istio-system}\nspec: {selector: {matchLabels: {istio: ingressgateway}}, action: DENY, \
                rules: [{to: [{operation: {paths: ['/admin*']}}]}]}\n---\n";
    let http = "- match: [{uri: {prefix: /a}}]\n  route:\n  - destination: {host: upstream.test}";
    let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()])
        + &yaml::virtual_service("all", "*", http)
        + gateway
        + deny;
    let proxy = Proxy::with(text).start();
    proxy.get("/a").send().expect(200);
    proxy.get("/admin").send().expect(403);
    proxy.get("/nowhere").send().expect(404);
    proxy.get("/x/../admin/unrouted").send().expect(403);
    assert_eq!(origin.hits(), 1);
}

#[test]
fn trial_policies_and_audits_are_only_counted() {
    let origin = Origin::h1().reply("ok");
    let dry = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: dry, annotations: \
               {istio.io/dry-run: 'true'}}\nspec: {action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}\n---\n";
    let audit = policy("watch", "{action: AUDIT, rules: [{to: [{operation: {methods: [POST]}}]}]}");
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()]) + dry + &audit).start();
    proxy.get("/a").send().expect(200);
    proxy.post("/b", "x").send().expect(200);
    let metrics = proxy.metrics();
    let counted = ["dry_run_denied", "dry_run_allowed", "audited"]
        .map(|what| metrics.sum(&format!("pilotlight_authz_{what}_total"), &[]));
    assert_eq!(counted, [1.0, 1.0, 1.0]);
}

#[test]
fn keys_are_fetched_change_with_their_server_and_outlive_it() {
    use parking_lot::Mutex;
    use std::sync::Arc;
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let served = Arc::new(Mutex::new((503, String::new())));
    let at = served.clone();
    let keys = Origin::h1().answer(move |seen| {
        let (status, text) = at.lock().clone();
        let same = !text.is_empty() && seen.header("if-none-match") == format!("\"{}\"", text.len());
        let reply = match (same, status) {
            (true, _) => Reply::status(304),
            (false, 200) => Reply::text(&text),
            (false, status) => Reply::status(status),
        };
        reply.header("etag", &format!("\"{}\"", text.len()))
    });
    let origin = Origin::h1().reply("ok");
    let uri = format!("http://{}/jwks", keys.address());
    let rules =
        object("RequestAuthentication", "t", &format!("{{jwtRules: [{{issuer: i, jwksUri: '{uri}'}}]}}"));
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()]) + &rules).start();
    let ask = |issuer: &Issuer| {
        let token = issuer.token(json!({"iss": "i", "sub": "ann"}));
        proxy.get("/").header("authorization", &format!("Bearer {token}")).send()
    };
    assert_eq!(ask(&old).expect(401).text(), "Jwks remote fetch is failed");
    proxy.get("/").send().expect(200);
    *served.lock() = (200, old.jwks());
    assert!(becomes_true(seconds(10), || ask(&old).status == 200), "the keys are fetched");
    assert_eq!(ask(&new).expect(401).text(), "Jwks doesn't have key to match kid or alg from Jwt");
    // The server has a new key: the first token that names it has it fetched.
    *served.lock() = (200, json!({"keys": [old.jwk(), new.jwk()]}).to_string());
    assert!(becomes_true(seconds(20), || ask(&new).status == 200), "the new key is fetched");
    ask(&old).expect(200);
    *served.lock() = (503, String::new());
    let stranger = Issuer::new("third");
    assert!(becomes_true(seconds(20), || {
        ask(&stranger).expect(401);
        proxy.metrics().sum("pilotlight_jwks_fetch_failed_total", &[]) >= 2.0
    }));
    ask(&new).expect(200);
    assert!(keys.hits() < 12, "{} fetches", keys.hits());
}

#[test]
fn on_this_host_requests_at_the_gateway_count_as_the_gateways_own() {
    let origin = Origin::h1().reply("ok");
    let gateway = "cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account";
    let allow =
        |who: &str| policy("p", &format!("{{rules: [{{from: [{{source: {{principals: ['{who}']}}}}]}}]}}"));
    for (who, status) in [(gateway, 200), ("cluster.local/ns/default/sa/front", 403)] {
        let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()]) + &allow(who)).start();
        proxy.get("/").send().expect(status);
        proxy.mesh().get("/").host("upstream.test").send().expect(403);
    }
    // Whoever reaches it from elsewhere is nobody.
    let text = yaml::all_to("HTTP", &[origin.address()]) + &allow(gateway);
    let proxy = Proxy::with(text).args(["--bind", "0.0.0.0"]).start();
    let port = proxy.front().address().port();
    Target::at(([127, 0, 0, 1], port).into()).get("/").send().expect(403);
}
