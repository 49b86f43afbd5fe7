//! A namespace of functions with all of it: a gateway, STRICT, tokens, policies by principal and by namespace, TLS by rule.

use super::{MESHED, STRICT, at, call, reset};
use crate::support::tokens::Issuer;
use crate::support::tools::{curl, needs};
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, Target, Town, seconds, yaml};
use serde_json::json;
use std::net::SocketAddr;

const ENCRYPT: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: encrypt-all
  namespace: parcels
spec:
  host: \"*.parcels.svc.cluster.local\"
  trafficPolicy:
    tls:
      mode: ISTIO_MUTUAL
---
";

/// Who may ask the desk, and for what; `keys` is where those of tokens are.
fn desk(keys: SocketAddr) -> String {
    format!(
        "{STRICT}
apiVersion: security.istio.io/v1beta1
kind: RequestAuthentication
metadata:
  name: tokens
  namespace: parcels
spec:
  selector:
    matchLabels:
      app: desk-function
  jwtRules:
  - issuer: accounts.example.org
    jwksUri: http://{}/certs
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: desk-authz
  namespace: parcels
spec:
  selector:
    matchLabels:
      app: desk-function
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/parcels/sa/clerk\"]
    to:
    - operation:
        methods: [\"GET\", \"POST\"]
        paths: [\"/api/*\"]
    when:
    - key: request.auth.claims[groups]
      values: [\"staff\", \"chiefs\"]
---
",
        keys
    )
}

#[test]
fn a_principal_a_method_a_path_and_a_group_all_at_once_behind_strict() {
    let issuer = Issuer::new("k");
    let (jwks, app) = (issuer.jwks(), Origin::h1().reply("desk"));
    let keys = Origin::h1().reply(&jwks);
    let text = desk(keys.address());
    let town = Town::of(&["parcels/desk", "parcels/clerk", "parcels/thief"]);
    let (callee, inbound) = town.callee("parcels/desk", "app=desk-function", &app, &text);
    // The endpoint is not known to have a sidecar: the rule for all of the namespace says it.
    let callers = ["clerk", "thief"].map(|account| {
        town.caller(&format!("parcels/{account}"), &(at("desk", inbound, "app: desk-function") + ENCRYPT))
    });
    let [clerk, thief] = &callers;
    let token = |groups: &[&str]| {
        issuer.token(json!({"iss": "accounts.example.org", "sub": "ann", "groups": groups}))
    };
    let ask = |caller: &Proxy, request: &str, token: &str| {
        let request = call(caller, "desk", request);
        let request = match token.is_empty() {
            true => request,
            false => request.header("authorization", &format!("Bearer {token}")),
        };
        request.send().status
    };
    let staff = token(&["drivers", "staff"]);
    assert!(becomes_true(seconds(10), || ask(clerk, "GET /api/x", &staff) == 200), "{}", callee.log());
    let late = issuer.token_until(-100, json!({"iss": "accounts.example.org", "sub": "ann"}));
    for (caller, request, token, status) in [
        (clerk, "POST /api/x", &staff, 200),
        (clerk, "GET /api/x", &token(&["chiefs"]), 200),
        (clerk, "PUT /api/x", &staff, 403),
        (clerk, "GET /other", &staff, 403),
        (clerk, "GET /api/x", &token(&["drivers"]), 403),
        (clerk, "GET /api/x", &String::new(), 403),
        (clerk, "GET /api/x", &late, 401),
        (thief, "GET /api/x", &staff, 403),
    ] {
        assert_eq!(ask(caller, request, token), status, "{request}");
    }
    reset(inbound);
    assert_eq!(app.last().header("x-forwarded-client-cert").matches("URI=").count(), 1);
    let mutual = [("connection_security_policy", "mutual_tls"), ("response_code", "200")];
    assert!(callee.metrics().sum("istio_requests_total", &mutual) >= 3.0);
}

#[test]
fn tokens_are_asked_of_those_who_bring_them_and_fail_while_their_keys_cannot_be_had() {
    let issuer = Issuer::new("k");
    let app = Origin::h1().reply("desk");
    let text = "
apiVersion: security.istio.io/v1beta1
kind: RequestAuthentication
metadata: {name: tokens, namespace: parcels}
spec:
  selector: {matchLabels: {app: desk-function}}
  jwtRules:
  - {issuer: accounts.example.org, jwksUri: 'http://127.0.0.1:1/certs'}
---
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: plain, namespace: parcels}
spec: {mtls: {mode: DISABLE}}
---
";
    let town = Town::of(&["parcels/desk"]);
    let (callee, inbound) = town.callee("parcels/desk", "app=desk-function", &app, text);
    let warning = callee.logs("cannot be fetched");
    assert!(warning.contains("WARN") && warning.contains("127.0.0.1:1/certs"), "{warning}");
    let inbound = Target::at(inbound);
    inbound.get("/").send().expect(200);
    let token = issuer.token(json!({"iss": "accounts.example.org", "sub": "ann"}));
    let answer = inbound.get("/").header("authorization", &format!("Bearer {token}")).send().expect(401);
    assert_eq!(answer.text(), "Jwks remote fetch is failed");
    assert_eq!(app.hits(), 1);
}

#[test]
fn each_namespace_has_its_own_methods_and_paths() {
    let app = Origin::h1().reply("orders");
    let text = format!(
        "{STRICT}
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: by-namespace
  namespace: parcels
spec:
  selector:
    matchLabels:
      app: order-function
  rules:
  - from:
    - source:
        namespaces: [\"web\"]
    to:
    - operation:
        methods: [\"POST\"]
        paths: [\"/orders\"]
  - from:
    - source:
        namespaces: [\"office\"]
    to:
    - operation:
        methods: [\"GET\", \"PUT\", \"DELETE\"]
        paths: [\"/orders/*\"]
---
"
    );
    let town = Town::of(&["parcels/orders", "web/shop", "office/clerk", "elsewhere/clerk"]);
    let (_callee, inbound) = town.callee("parcels/orders", "app=order-function", &app, &text);
    let callers = ["web/shop", "office/clerk", "elsewhere/clerk"]
        .map(|who| (who, town.caller(who, &at("orders", inbound, MESHED))));
    let [web, office, elsewhere] = &callers;
    for ((who, caller), request, status) in [
        (web, "POST /orders", 200),
        (web, "POST /orders/1", 403),
        (web, "GET /orders/1", 403),
        (office, "GET /orders/1", 200),
        (office, "PUT /orders/1", 200),
        (office, "DELETE /orders/1/2", 200),
        (office, "GET /orders", 403),
        (office, "POST /orders", 403),
        (elsewhere, "POST /orders", 403),
        (elsewhere, "GET /orders/1", 403),
    ] {
        assert_eq!(call(caller, "orders", request).send().status, status, "{who} {request}");
    }
}

#[test]
fn tls_for_a_host_outside_towards_a_strict_workload_fails_on_its_port_and_is_said() {
    let app = Origin::h1().reply("bills");
    let town = Town::of(&["parcels/bills", "parcels/clerk"]);
    let (callee, inbound) = town.callee("parcels/bills", "app=bills", &app, STRICT);
    let rules = format!(
        "{STRICT}
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: bills-outside
  namespace: parcels
spec:
  host: bills.parcels.svc.cluster.local
  trafficPolicy:
    portLevelSettings:
    - port:
        number: 443
      tls:
        mode: SIMPLE
        sni: bills-api.example.org
        caCertificates: {}
---
",
        town.file("ca.crt")
    );
    let text = at("bills", inbound, &format!("app: bills, {MESHED}")) + ENCRYPT + &rules;
    let caller = town.caller("parcels/clerk", &text);
    // Of the rule for all nothing is left here; the mesh does it by itself.
    call(&caller, "bills", "GET /").send().expect(200);
    assert!(app.last().header("x-forwarded-client-cert").contains("sa/clerk"));
    caller.mesh().get("/").host("bills.parcels.svc.cluster.local:443").send().expect(503);
    caller.access_line(&["bills.parcels.svc.cluster.local:443", "503 UF", "none of the names asked for"]);
    // Nor would it help to believe whoever answers: it asks for a certificate of the mesh.
    let believing = text.replace("caCertificates: ", "insecureSkipVerify: true #");
    caller.write("config.yaml", &believing);
    caller.logs("SC024");
    caller.mesh().get("/").host("bills.parcels.svc.cluster.local:443").send().expect(503);
    assert_eq!(app.hits(), 1);
    let refused = || callee.metrics().sum("pilotlight_faults_total", &[("fault", "PeerRefused")]);
    assert!(becomes_true(seconds(5), || refused() >= 1.0), "{}", callee.log());
    for said in ["SC034", "IST0113", "bills-api.example.org"] {
        caller.logs(said);
    }
}

/// A Gateway for hosts of the parcels, in plaintext and with TLS from files.
fn gateway(town: &Town, certificate: &str, origin: SocketAddr) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: parcels-gateway
  namespace: parcels
spec:
  selector:
    istio: ingressgateway
  servers:
  - port:
      number: 80
      name: http
      protocol: HTTP
    hosts:
    - \"*.parcels.example.org\"
  - port:
      number: 443
      name: https
      protocol: HTTPS
    tls:
      mode: SIMPLE
      serverCertificate: {}
      privateKey: {}
    hosts:
    - \"*.parcels.example.org\"
---
{}{}",
        town.file(&format!("hosts/{certificate}/tls.crt")),
        town.file(&format!("hosts/{certificate}/tls.key")),
        yaml::service_entry("upstream.test", "HTTP", &[origin]),
        yaml::virtual_service(
            "all",
            "*.parcels.example.org",
            "- route:\n  - destination: {host: upstream.test}"
        )
        .replace("gateways: [edge]", "gateways: [parcels/parcels-gateway]")
    )
}

#[test]
fn a_gateway_with_certificate_files_serves_both_ports_and_without_them_the_plain_one() {
    needs!("curl");
    let origin = Origin::h1().reply("parcel");
    let town = Town::of(&[]);
    town.issue(&["track.parcels.example.org"], &[]);
    let proxy = Proxy::with(gateway(&town, "track.parcels.example.org", origin.address())).start();
    let missing = Proxy::with(gateway(&town, "nobody", origin.address())).start();
    for proxy in [&proxy, &missing] {
        let plain = proxy.gateway(80);
        plain.get("/").host("track.parcels.example.org").send().expect(200);
        plain.get("/").host("track.example.org").send().expect(404);
    }
    let secure = |proxy: &Proxy, host: &str| {
        let at = proxy.gateway(443).address();
        let resolve = format!("{host}:{}:{}", at.port(), at.ip());
        let (url, ca) = (format!("https://{host}:{}/", at.port()), town.file("ca.crt"));
        curl(&["--resolve", &resolve, "--cacert", &ca, "-w", "%{http_code} %{ssl_verify_result}", &url])
    };
    let answer = secure(&proxy, "track.parcels.example.org");
    assert_eq!(answer.stdout, "parcel200 0", "{answer:?}");
    assert_eq!(origin.last().header("x-forwarded-proto"), "https");
    assert!(!secure(&proxy, "track.example.org").success, "no server has the name");
    assert!(!secure(&missing, "track.parcels.example.org").success, "there is no certificate");
    let said = missing.logs("nobody/tls.crt");
    assert!(said.contains("TLS clients of its hosts are refused"), "{said}");
}
