//! A sidecar: what stands in front of its workload, how it speaks to others, and what closes it.

use crate::view::load_files;
use proxy_config::load::{File, Loaded, Options, Sidecar, load};
use proxy_config::model::{
    Action, Bind, ClientMode, Cluster, Direction, Guard, ListenerTls, Mtls, StringMatch, Tables, Workload,
};
use std::net::SocketAddr;
use std::path::PathBuf;

fn options() -> Options {
    let workload = Workload {
        namespace: "shop".to_owned(),
        name: "till".to_owned(),
        service_account: "clerk".to_owned(),
        labels: [("app", "till"), ("serving.knative.dev/revision", "till-00001")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (apps, inbound) = (vec![at(8080), at(9090)], at(15006));
    Options { sidecar: Some(Sidecar { workload, apps, inbound }), ..Options::default() }
}

fn load_text(text: &str) -> Loaded {
    load_files(&[("a.yaml", text)], &options(), None)
}

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: till, namespace: shop}
spec:
  selector: {app: till}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc-admin, port: 81, targetPort: 9090}]
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: till, namespace: shop}
spec: {template: {spec: {containerConcurrency: 3, timeoutSeconds: 7, containers: [{image: x}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: shop}
spec: {selector: {app: stock}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stock-1, namespace: shop, labels: {app: stock, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: keeper}
status: {podIP: 10.0.0.1}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: till}}, rules: [{}]}
---
";

fn cluster<'a>(loaded: &'a Loaded, name: &str) -> &'a Cluster {
    loaded.config.clusters.iter().find(|cluster| cluster.name == name).expect(name)
}

fn guard(loaded: &Loaded) -> &Guard {
    let [guard] = loaded.config.guards.as_slice() else { panic!("{:?}", loaded.config.guards) };
    guard
}

#[test]
fn a_sidecar_has_its_workload_in_front_and_the_mesh_behind() {
    let loaded = load_text(SHOP);
    assert_eq!(loaded.blockers, Vec::<String>::new());
    let [inbound, outbound] = loaded.config.listeners.as_slice() else { panic!() };
    assert_eq!((inbound.direction, outbound.direction), (Direction::Inbound, Direction::Outbound));
    assert_eq!(inbound.bind, Bind::Address("127.0.0.1:15006".parse().unwrap()));
    assert_eq!(inbound.name, "inbound:8080");
    let ListenerTls::Mesh(own) = &inbound.tls else { panic!("{:?}", inbound.tls) };
    let own = own.iter().map(|own| (own.port, own.dialled.iter().copied().collect::<Vec<_>>(), own.opaque));
    assert_eq!(own.collect::<Vec<_>>(), [(8080, vec![80, 8080], false), (9090, vec![81, 9090], false)]);
    assert_eq!(inbound.guard.as_deref(), Some("shop/till"));
    assert_eq!(guard(&loaded).policies.len(), 1);
    assert!(loaded.config.revisions.is_empty() && loaded.config.workload.is_some());
    assert!(loaded.config.clusters.iter().all(|cluster| cluster.guard.is_none()));
    assert_eq!(cluster(&loaded, "inbound|8080||").concurrency, 3);
    let Tables::One(table) = &inbound.tables else { panic!() };
    let routes: Vec<(Option<&StringMatch>, &str, Option<u64>)> = table.hosts[0]
        .routes
        .iter()
        .map(|route| {
            let Action::Forward(forward) = &route.action else { panic!() };
            let to = forward.destinations[0].cluster.as_str();
            (route.matches.authority.as_ref(), to, forward.timeout.map(|timeout| timeout.as_secs()))
        })
        .collect();
    let second = StringMatch::Regex(".*:(81|9090)".to_owned());
    assert_eq!(routes, [(Some(&second), "inbound|9090||", Some(7)), (None, "inbound|8080||", Some(7))]);
}

#[test]
fn others_are_spoken_to_as_rules_and_their_endpoints_say() {
    let stock = "outbound|80||stock.shop.svc.cluster.local";
    let check = |more: &str, mode: Option<ClientMode>| {
        let loaded = load_text(&(SHOP.to_owned() + more));
        let tls = cluster(&loaded, stock).tls.as_ref();
        assert_eq!(tls.map(|tls| tls.mode), mode, "{more} {}", loaded.report.text());
        if let Some(tls) = tls.filter(|tls| matches!(tls.mode, ClientMode::Auto | ClientMode::IstioMutual)) {
            assert_eq!(tls.names, ["cluster.local/ns/shop/sa/keeper"]);
            assert_eq!(tls.sni.as_deref(), Some("outbound_.80_._.stock.shop.svc.cluster.local"));
        }
    };
    let rule = |tls: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: \
             shop}}\nspec: {{host: stock, trafficPolicy: {{{tls}}}}}\n---\n"
        )
    };
    let peer = |mode: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: \
             shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n---\n"
        )
    };
    let off = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: \
               'enableAutoMtls: false'}\n---\n";
    check("", Some(ClientMode::Auto));
    check(off, None);
    check(&peer("STRICT"), Some(ClientMode::Auto));
    check(&peer("DISABLE"), None);
    check(&rule("tls: {mode: DISABLE}"), None);
    check(&rule("tls: {mode: ISTIO_MUTUAL}"), Some(ClientMode::IstioMutual));
    check(&rule("tls: {mode: SIMPLE}"), Some(ClientMode::Simple));
    check(&rule("tls: {mode: MUTUAL, clientCertificate: a, privateKey: b}"), Some(ClientMode::Mutual));
    // Settings of a port replace all; those of another port do not concern this one.
    let port = |number: u16| {
        format!(
            "tls: {{mode: SIMPLE}}, portLevelSettings: [{{port: {{number: {number}}}, tls: {{mode: DISABLE}}}}]"
        )
    };
    check(&rule(&port(80)), None);
    check(&rule(&port(81)), Some(ClientMode::Simple));
    check(
        &rule("portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]"),
        Some(ClientMode::Auto),
    );
}

#[test]
fn what_istio_refuses_of_tls_to_a_destination_is_refused() {
    for (tls, expected) in [
        ("mode: MUTUAL", "client certificate required for mutual tls"),
        ("mode: ISTIO_MUTUAL, caCertificates: a", "CA certificates must not be set"),
        ("mode: SIMPLE, credentialName: a, caCertificates: b", "beside credentialName"),
        ("mode: SIMPLE, insecureSkipVerify: true, caCertificates: b", "insecureSkipVerify cannot be set"),
        ("mode: SIMPLE, insecureSkipVerify: true", "whoever answers is believed"),
        ("mode: SIMPLE, credentialName: nobody", "credentialName not found"),
    ] {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: \
             shop}}\nspec: {{host: stock, trafficPolicy: {{tls: {{{tls}}}}}}}\n---\n"
        );
        let loaded = load_text(&(SHOP.to_owned() + &rule));
        assert!(loaded.report.text().contains(expected), "{tls}: {}", loaded.report.text());
    }
}

#[test]
fn a_sidecar_that_cannot_know_what_to_enforce_refuses_everything() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: q, namespace: \
             shop}}\nspec: {spec}\n"
        )
    };
    let texts = |text: Result<&str, &str>| {
        let file = |name: &str, text: Result<&str, &str>| File {
            path: PathBuf::from(name),
            text: text.map(Into::into).map_err(str::to_owned),
        };
        vec![file("a.yaml", Ok(SHOP)), file("b.yaml", text)]
    };
    let broken = policy("{rules: [");
    let bad = policy("{rules: [{from: []}]}");
    let null = policy("");
    let unselected = policy("{selector: {matchLabels: {app: else}}, rules: [{from: []}]}");
    for (files, closed) in [
        (Vec::new(), true),
        (texts(Err("permission denied")), true),
        (texts(Ok(&broken)), true),
        (texts(Ok(&bad)), true),
        (texts(Ok(&null)), true),
        (texts(Ok(&unselected)), false),
        (texts(Ok(&policy("{rules: [{}]}"))), false),
    ] {
        let loaded = load(&files, &options(), None);
        assert_eq!(!loaded.blockers.is_empty(), closed, "{files:?} {:?}", loaded.blockers);
        assert_eq!(!guard(&loaded).quarantined.is_empty(), closed, "{files:?}");
    }
    // Of what is not known plaintext may be forbidden as well.
    assert_eq!(guard(&load(&[], &options(), None)).mtls.at(8080), Mtls::Strict);
    // What was good once stays.
    let first = load(&texts(Ok(&policy("{rules: [{}]}"))), &options(), None);
    let then = load(&texts(Ok(&null)), &options(), Some(&first.kept));
    assert_eq!(then.blockers, Vec::<String>::new());
}
