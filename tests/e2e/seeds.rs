//! Documents about trust as people copy them from articles, retyped: mutual TLS, tokens and policies do between real
//! sidecars what they say, and what is odd about them is said.

mod large;
mod small;

use crate::support::{Proxy, Request, Target};
use std::net::SocketAddr;

const STRICT: &str = "
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata:
  name: encrypted
  namespace: parcels
spec:
  mtls:
    mode: STRICT
---
";

/// How callers reach a workload of the parcels; `labels` are those of its endpoint.
fn at(name: &str, callee: SocketAddr, labels: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: parcels}}
spec:
  hosts: [{name}.parcels.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 443, name: http-two, protocol: HTTP}}]
  endpoints: [{{address: {}, ports: {{http: {port}, http-two: {port}}}, labels: {{{labels}}}}}]
---
",
        callee.ip(),
        port = callee.port()
    )
}

const MESHED: &str = "security.istio.io/tlsMode: istio";

fn call(caller: &Proxy, name: &str, request: &str) -> Request {
    let (method, path) = request.split_once(' ').unwrap();
    let method = http::Method::from_bytes(method.as_bytes()).unwrap();
    caller.mesh().request(method, path).host(&format!("{name}.parcels.svc.cluster.local"))
}

fn reset(callee: SocketAddr) {
    let answer = Target::at(callee).get("/api/x").try_send();
    assert!(answer.is_err(), "plaintext is answered: {answer:?}");
}
