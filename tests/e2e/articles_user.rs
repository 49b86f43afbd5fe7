//! A configuration written for a cluster's edge, on the laptop of an ordinary user: ports 80 and 443, and
//! functions of which there is nothing but an image.

use crate::support::Proxy;
use crate::support::proxy::{Directory, PILOTLIGHT};

/// Nobody, on every Linux.
const USER: &str = "65534";

const EDGE: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: depot-gateway
  namespace: depot
spec:
  selector:
    istio: ingressgateway
  servers:
  - port:
      number: 80
      name: http
      protocol: HTTP
    hosts:
    - '*.depot.example.org'
  - port:
      number: 443
      name: https
      protocol: HTTPS
    tls:
      mode: SIMPLE
      serverCertificate: /etc/certs/depot.pem
      privateKey: /etc/certs/depot.key
    hosts:
    - '*.depot.example.org'
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: parcels
  namespace: depot
spec:
  hosts:
  - parcels.depot.example.org
  gateways:
  - depot-gateway
  http:
  - match:
    - headers:
        customer:
          exact: gold
    route:
    - destination:
        host: gold-parcels
  - route:
    - destination:
        host: parcels
---
";

fn function(name: &str) -> String {
    format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: depot\nspec:\n  \
         template:\n    spec:\n      containers:\n      - image: registry.example.org/depot/{name}:1.4\n        ports:\n        \
         - containerPort: 8080\n---\n"
    )
}

fn may_bind_80() -> bool {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    first.trim().parse::<u16>().is_ok_and(|port| port <= 80)
}

/// The words before the program that take all privileges away; none for who has none. `None`: it cannot be
/// done here.
fn as_ordinary_user() -> Option<Vec<&'static str>> {
    if may_bind_80() {
        println!("skipped: here everybody may bind port 80");
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let drop = [
        "setpriv",
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ];
    let possible = std::process::Command::new(drop[0]).args(&drop[1..]).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: needs setpriv that may drop privileges");
        return None;
    }
    Some(drop.to_vec())
}

/// Uid and effective capabilities.
fn privileges(pid: u32) -> (String, String) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    (field("Uid:"), field("CapEff:"))
}

#[test]
fn an_ordinary_user_gets_a_clusters_edge_on_ports_of_their_own_and_stand_ins_for_images() {
    let Some(mut program) = as_ordinary_user() else { return };
    // Where the binary was built an ordinary user may not look.
    let place = Directory::new();
    let copy = place.path().join("pilotlight");
    std::fs::copy(PILOTLIGHT, &copy).unwrap();
    program.push(copy.to_str().unwrap());
    let text = EDGE.to_owned() + &function("parcels") + &function("gold-parcels");
    // An address of its own, where nobody else has port 8080.
    let setup = Proxy::with(text).own_ports().program(&program).args(["--stand-in", "--bind", "127.0.0.99"]);
    let proxy = setup.start();
    let (uid, capabilities) = privileges(proxy.pid());
    assert!(uid != "0" && capabilities.trim_start_matches('0').is_empty(), "{uid} {capabilities}");
    let said = proxy.logs("stands in)");
    assert!(said.contains("127.0.0.99:8080") && said.contains("port 80 may not be bound"), "{said}");
    // What it needs for TLS is not there: its clients are refused, all else is served.
    proxy.logs("depot.pem: No such file or directory");
    let front = proxy.gateway(80);
    for (customer, function) in [("gold", "gold-parcels"), ("silver", "parcels")] {
        let request = front.get("/track/7").host("parcels.depot.example.org").header("customer", customer);
        let answer: serde_json::Value = serde_json::from_str(&request.send().expect(200).text()).unwrap();
        assert_eq!(answer["name"], function, "{answer:#}");
        assert_eq!(answer["path"], "/track/7", "{answer:#}");
    }
    front.get("/").host("elsewhere.example.org").send().expect(404);
}
