//! Single policies: modes by namespace and workload, rules that say more than was meant, callers and claims of nobody.

use super::{MESHED, at, call, reset};
use crate::support::tokens::Issuer;
use crate::support::wait::becomes_true;
use crate::support::{Origin, Target, Town, seconds};
use serde_json::json;

#[test]
fn a_namespace_is_strict_and_one_workload_of_it_takes_plaintext_alone() {
    let policies = "
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata:
  name: default
  namespace: parcels
spec:
  mtls:
    mode: STRICT
---
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata:
  name: plain-sorter
  namespace: parcels
spec:
  selector:
    matchLabels:
      app: sorter
  mtls:
    mode: DISABLE
---
";
    let town = Town::of(&["parcels/sorter", "parcels/desk", "parcels/clerk"]);
    let (sorter, desk) = (Origin::h1().reply("sorter"), Origin::h1().reply("desk"));
    let (_first, plain) = town.callee("parcels/sorter", "app=sorter", &sorter, policies);
    let (_second, strict) = town.callee("parcels/desk", "app=desk", &desk, policies);
    Target::at(plain).get("/").send().expect(200);
    reset(strict);
    // Callers that have the same policies follow them.
    let text = at("sorter", plain, &format!("app: sorter, {MESHED}"))
        + &at("desk", strict, &format!("app: desk, {MESHED}"))
        + policies;
    let caller = town.caller("parcels/clerk", &text);
    assert_eq!(call(&caller, "sorter", "GET /").send().expect(200).text(), "sorter");
    assert_eq!(call(&caller, "desk", "GET /").send().expect(200).text(), "desk");
    assert_eq!(sorter.last().header("x-forwarded-client-cert"), "");
    assert!(desk.last().header("x-forwarded-client-cert").contains("/sa/clerk"));
    // Nobody is selected by a label that nobody has.
    let alone = town.caller("parcels/clerk", &(at("desk", strict, "app: desk") + policies));
    let warning = alone.logs("IST0127");
    assert!(warning.contains("plain-sorter"), "{warning}");
}

#[test]
fn two_rules_where_one_was_meant_let_anybody_pay_and_it_is_said() {
    let policy = "
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: only-payers
  namespace: parcels
spec:
  selector:
    matchLabels:
      app: bills
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [\"cluster.local/ns/parcels/sa/payer\"]
    - to:
        - operation:
            methods: [\"POST\"]
            paths: [\"/api/pay\"]
---
";
    let app = Origin::h1().reply("bills");
    let town = Town::of(&["parcels/bills", "parcels/payer", "parcels/thief"]);
    let (callee, inbound) = town.callee("parcels/bills", "app=bills", &app, policy);
    let callers =
        ["payer", "thief"].map(|who| town.caller(&format!("parcels/{who}"), &at("bills", inbound, MESHED)));
    let [payer, thief] = &callers;
    for (caller, request, status) in [
        (payer, "GET /anything", 200),
        (payer, "POST /api/pay", 200),
        (thief, "POST /api/pay", 200),
        (thief, "GET /api/pay", 403),
        (thief, "POST /api/pay/1", 403),
    ] {
        assert_eq!(call(caller, "bills", request).send().status, status, "{request}");
    }
    assert!(callee.logs("SC020").contains("only-payers"));
}

#[test]
fn objects_without_a_namespace_are_in_the_one_that_is_given() {
    let text = "
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata:
  name: default
spec:
  mtls:
    mode: STRICT
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: desk-only
spec:
  selector:
    matchLabels:
      app: desk
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/parcels/sa/desk-account\"]
    to:
    - operation:
        methods: [\"GET\", \"POST\"]
        paths: [\"/api/*\"]
---
";
    let gateway = "istio-system/istio-ingressgateway-service-account";
    let town = Town::of(&["parcels/desk", "parcels/desk-account", "other/desk", gateway]);
    let app = Origin::h1().reply("desk");
    let callee = town.beside("parcels/desk", "app=desk", app.address(), text);
    let callee = callee.args(["--namespace", "parcels"]).start();
    let inbound = callee.inbound(&app).address();
    reset(inbound);
    let own = town.caller("parcels/desk-account", &at("desk", inbound, MESHED));
    let front = town.caller(gateway, &at("desk", inbound, MESHED));
    call(&own, "desk", "GET /api/x").send().expect(200);
    call(&own, "desk", "DELETE /api/x").send().expect(403);
    call(&own, "desk", "GET /x").send().expect(403);
    call(&front, "desk", "GET /api/x").send().expect(403);
    let warning = callee.logs("SC022");
    assert!(warning.contains("desk-only") && warning.contains("nobody but itself"), "{warning}");
    // Elsewhere nothing of it holds.
    let other = town.beside("other/desk", "app=desk", app.address(), text);
    let other = other.args(["--namespace", "parcels"]).start();
    other.inbound(&app).get("/x").send().expect(200);
}

#[test]
fn a_claim_of_tokens_that_nobody_verifies_is_nobodys() {
    let policy = "
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: by-token
  namespace: parcels
spec:
  selector:
    matchLabels:
      app: store
  rules:
  - from:
    - source:
        requestPrincipals: [\"*\"]
    when:
    - key: request.auth.claims[iss]
      values: [\"https://accounts.example.org\"]
---
";
    let issuer = Issuer::new("k");
    let verified = format!(
        "
apiVersion: security.istio.io/v1beta1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: parcels}}
spec:
  selector: {{matchLabels: {{app: store}}}}
  jwtRules:
  - {{issuer: 'https://accounts.example.org', jwks: '{jwks}'}}
  - {{issuer: 'https://other.example.org', jwks: '{jwks}'}}
---
",
        jwks = issuer.jwks()
    );
    let town = Town::of(&["parcels/store"]);
    let app = Origin::h1().reply("store");
    let (callee, inbound) = town.callee("parcels/store", "app=store", &app, policy);
    let inbound = Target::at(inbound);
    let ask = |iss: &str| {
        let token = issuer.token(json!({"iss": format!("https://{iss}.example.org"), "sub": "ann"}));
        inbound.get("/").header("authorization", &format!("Bearer {token}")).send().status
    };
    assert_eq!((ask("accounts"), inbound.get("/").send().status), (403, 403));
    assert!(callee.logs("SC021").contains("by-token"));
    callee.write("more.yaml", &verified);
    assert!(becomes_true(seconds(10), || ask("accounts") == 200), "{}", callee.log());
    assert_eq!((ask("other"), inbound.get("/").send().status), (403, 403));
}
