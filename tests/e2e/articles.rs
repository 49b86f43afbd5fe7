//! Configurations as people copy them from articles, retyped: they load, and route as they read.

use crate::support::proxy::PILOTLIGHT;
use crate::support::tools::run;
use crate::support::{Origin, Proxy, yaml};
use std::net::SocketAddr;

/// A ServiceEntry for `NAME.apps.svc.cluster.local`.
fn app(name: &str, origin: SocketAddr) -> String {
    yaml::service_entry(&format!("{name}.apps.svc.cluster.local"), "HTTP", &[origin])
}

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: apps-gateway, namespace: apps}
spec:
  selector:
    istio: ingressgateway
  servers:
  - port:
      number: 80
      name: http
      protocol: HTTP
    hosts:
    - '*.apps.example.org'
---
";

#[test]
fn a_header_chooses_the_tier() {
    let origins = ["gold", "silver", "plain"].map(|tier| Origin::h1().reply(tier));
    let rule = |tier: &str| {
        format!(
            "  - match:\n    - headers:\n        user-tier:\n          exact: \"{tier}\"\n    route:\n    \
                 - destination:\n        host: {tier}-accounts.apps.svc.cluster.local\n"
        )
    };
    let routes = format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: accounts-routing\n  \
         namespace: apps\nspec:\n  hosts:\n  - accounts.apps.example.org\n  gateways:\n  - apps-gateway\n  http:\n{}{}  \
         - route:\n    - destination:\n        host: plain-accounts.apps.svc.cluster.local\n---\n",
        rule("gold"),
        rule("silver")
    );
    let entries: String = ["gold", "silver", "plain"]
        .iter()
        .zip(&origins)
        .map(|(tier, origin)| app(&format!("{tier}-accounts"), origin.address()))
        .collect();
    let proxy = Proxy::with(GATEWAY.to_owned() + &routes + &entries).start();
    let ask = |tier: &str| {
        let request = proxy.gateway(80).get("/").host("accounts.apps.example.org");
        if tier.is_empty() { request } else { request.header("user-tier", tier) }.send().expect(200).text()
    };
    for (sent, answered) in
        [("gold", "gold"), ("silver", "silver"), ("bronze", "plain"), ("", "plain"), ("Gold", "plain")]
    {
        assert_eq!(ask(sent), answered, "{sent:?}");
    }
    proxy.gateway(80).get("/").host("accounts.example.org").send().expect(404);
}

fn in_the_mesh(name: &str, host: &str, http: &str) -> String {
    yaml::virtual_service(name, host, http).replace("  gateways: [edge]\n", "")
}

#[test]
fn a_timeout_and_retries_on_a_call_in_the_mesh() {
    let origin = Origin::h1().reply("paid");
    let http = "
- route:
  - destination:
      host: payments.apps.svc.cluster.local
  timeout: 5s
  retries:
    attempts: 3
    perTryTimeout: 2s
    retryOn: connect-failure,refused-stream";
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
    let entry = yaml::service_entry("payments.apps.svc.cluster.local", "HTTP", &[closed, origin.address()]);
    let proxy = Proxy::with(in_the_mesh("pay", "payments.apps.example.org", http) + &entry).start();
    for _ in 0..10 {
        let response = proxy.mesh().get("/").host("payments.apps.example.org").send().expect(200);
        assert_eq!(response.text(), "paid");
    }
}

#[test]
fn a_circuit_breaker_with_a_fifth_of_its_endpoints() {
    let good: Vec<Origin> = (0..4).map(|_| Origin::h1().reply("stock")).collect();
    let bad = Origin::h1().status(500);
    let policy = "connectionPool:\n  tcp: {maxConnections: 100, connectTimeout: 30ms}\n  \
                  http: {http1MaxPendingRequests: 1000, maxRequestsPerConnection: 10}\n\
                  outlierDetection: {consecutive5xxErrors: 5, interval: 60s, baseEjectionTime: 60s, maxEjectionPercent: 20}";
    let host = "stock.apps.svc.cluster.local";
    let endpoints: Vec<SocketAddr> = good.iter().chain([&bad]).map(Origin::address).collect();
    let text = yaml::service_entry(host, "HTTP", &endpoints) + &yaml::destination_rule(host, policy);
    let proxy = Proxy::with(text).start();
    for _ in 0..150 {
        proxy.mesh().get("/").host(host).send();
    }
    assert_eq!(bad.hits(), 5, "one of five is 20 %, and the fifth failure ejects it");
}

#[test]
fn blue_and_green_by_a_header_and_a_canary_by_weight() {
    let (v1, v2) = (Origin::h1().reply("v1"), Origin::h1().reply("v2"));
    let colours = "
- match:
  - headers:
      version:
        exact: \"v2\"
  route:
  - destination:
      host: accounts-v2.apps.svc.cluster.local
- route:
  - destination:
      host: accounts-v1.apps.svc.cluster.local";
    let weights = "
- route:
  - destination:
      host: accounts-v1.apps.svc.cluster.local
    weight: 90
  - destination:
      host: accounts-v2.apps.svc.cluster.local
    weight: 10";
    let text = in_the_mesh("colours", "accounts.apps.example.org", colours)
        + &in_the_mesh("weights", "orders.apps.example.org", weights)
        + &app("accounts-v1", v1.address())
        + &app("accounts-v2", v2.address());
    let proxy = Proxy::with(text).start();
    let mesh = proxy.mesh();
    let mut connection = mesh.connect();
    let mut ask = |host: &str, version: &str| {
        connection.send(mesh.get("/").host(host).header("version", version)).expect(200).text()
    };
    assert_eq!(ask("accounts.apps.example.org", "v2"), "v2");
    assert_eq!(ask("accounts.apps.example.org", "v1"), "v1");
    let second = (0..500).filter(|_| ask("orders.apps.example.org", "v1") == "v2").count();
    // A tenth of 500 is 50, with a standard deviation under 7.
    assert!((17..=83).contains(&second), "{second} of 500");
}

#[test]
fn check_says_where_what_and_what_to_do() {
    let directory = crate::support::proxy::Directory::new();
    let check = |text: &str, arguments: &[&str]| {
        directory.write("a.yaml", text);
        let mut all = vec!["check", directory.path().to_str().unwrap()];
        all.extend(arguments);
        let outcome = run(PILOTLIGHT, &all);
        (outcome.success, outcome.stdout + &outcome.stderr)
    };
    let good = app("a", SocketAddr::from(([127, 0, 0, 1], 9)));
    assert_eq!(check(&good, &[]), (true, String::new()), "silent when all is well");
    let (success, said) = check(&good.replace("resolution", "resolutoin"), &[]);
    assert!(!success && said.contains("a.yaml:7:") && said.contains("resolution"), "{said}");
    let weights = "
- route:
  - destination: {host: a.apps.svc.cluster.local}
  - weight: 90";
    let (success, said) = check(&(good.clone() + &yaml::virtual_service("w", "w.test", weights)), &[]);
    assert!(!success && said.contains("destination"), "{said}");
    let (success, said) =
        check("apiVersion: v1\nkind: Service\nmetadata:\nname: web\nspec:\nports:\n- port: 80\n", &[]);
    assert!(!success && said.to_lowercase().contains("indentation"), "{said}");
    let (success, said) = check(&good.replace("resolution", "resolutoin"), &["--format", "json"]);
    assert!(!success);
    serde_json::from_str::<serde_json::Value>(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
}
