//! YAML that many tests share, and the ways to look at what it comes to.

use crate::view::{findings, load_text, routes, routes_at};
use proxy_config::load::Loaded;
use proxy_config::model::Cluster;

/// A function.
pub const HELLO: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec: {template: {spec: {containers: [{image: i}]}}}
---
";

/// A service with two endpoints that are ready, one of each version.
pub const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: r1}}
- {addresses: [10.0.0.2], conditions: {ready: true}}
- {addresses: [10.0.0.3], conditions: {ready: false}}
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: r1, labels: {version: v1}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: r2, labels: {version: v2}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.2}
---
";

/// A gateway with one HTTP server.
pub fn gateway(name: &str, port: u16, hosts: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: {port}, name: http, protocol: HTTP}}
    hosts: {hosts}
---
"
    )
}

/// A VirtualService; `spec` in flow style.
pub fn rules(name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec: {spec}
---
"
    )
}

/// A DestinationRule; `spec` in flow style.
pub fn rule(name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec: {spec}
---
"
    )
}

/// The text is in order, and the routes whose lines begin with `start` are these.
#[track_caller]
pub fn check(text: &str, start: &str, expected: &[&str]) {
    let loaded = load_text(text);
    assert_eq!(findings(&loaded), Vec::<String>::new());
    assert_eq!(routes_at(&loaded.config, start), expected, "{:#?}", routes(&loaded.config));
}

/// The text gives these findings: the beginning of each line after its place.
#[track_caller]
pub fn check_findings(text: &str, expected: &[&str]) {
    let got = findings(&load_text(text));
    let got: Vec<&str> =
        got.iter().map(|line| line.split_once(' ').map_or(line.as_str(), |(_, rest)| rest)).collect();
    let fits = got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| g.starts_with(e));
    assert!(fits, "got {got:#?}\nexpected {expected:#?}");
}

/// The cluster of that name.
pub fn cluster<'a>(loaded: &'a Loaded, name: &str) -> &'a Cluster {
    loaded.config.clusters.iter().find(|cluster| cluster.name == name).expect(name)
}
