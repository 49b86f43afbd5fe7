//! What is believed of those whom a request has passed before: certificates that others vouch for, and addresses that
//! proxies in front tell of.

use crate::support::secure::Dial;
use crate::support::{Origin, Proxy, Target, Town, yaml};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

fn mesh(config: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         defaultConfig: {{{config}}}\n---\n"
    )
}

/// The certificate of this workload.
fn dial(town: &Town, who: &str) -> Dial {
    let file = |name: &str| PathBuf::from(town.file(&format!("{who}/{name}")));
    Dial::new(&["istio-http/1.1", "http/1.1"], Some((&file("cert-chain.pem"), &file("key.pem"))))
}

/// A request that says whom others vouch for.
const FORGED: &str = "GET / HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-client-cert: Hash=forged\r\nconnection: close\r\n\r\n";

fn ask(dial: &Dial, address: SocketAddr) {
    let mut stream = dial.to(address, "shop.example").unwrap();
    stream.write_all(FORGED.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_gateway_says_of_certificates_what_its_topology_says() {
    let (origin, town) = (Origin::h1().reply("hello"), Town::of(&["default/client"]));
    town.issue(&["shop.example"], &[]);
    let file = |name: &str| town.file(&format!("hosts/shop.example/{name}"));
    let gateway = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
         servers:\n  - port: {{number: 8443, name: https, protocol: HTTPS}}\n    hosts: ['*']\n    tls: {{mode: \
         OPTIONAL_MUTUAL, serverCertificate: {}, privateKey: {}, caCertificates: {}}}\n---\n{}",
        file("tls.crt"),
        file("tls.key"),
        town.file("ca.crt"),
        yaml::all_to("HTTP", &[origin.address()])
    );
    for (mode, known, nobody) in [
        ("", "Hash=…;URI=spiffe://cluster.local/ns/default/sa/client", ""),
        ("SANITIZE", "", ""),
        ("FORWARD_ONLY", "Hash=forged", ""),
        ("APPEND_FORWARD", "Hash=forged,…/sa/client", ""),
        ("SANITIZE_SET", "Hash=…/sa/client", ""),
        ("ALWAYS_FORWARD_ONLY", "Hash=forged", "Hash=forged"),
    ] {
        let settings = match mode {
            "" => String::new(),
            mode => mesh(&format!("gatewayTopology: {{forwardClientCertDetails: {mode}}}")),
        };
        let proxy = Proxy::with(gateway.clone() + &settings).start();
        let at = proxy.gateway(8443).address();
        for (dial, wanted) in
            [(dial(&town, "default/client"), known), (Dial::new(&["http/1.1"], None), nobody)]
        {
            ask(&dial, at);
            let seen = origin.last().all("x-forwarded-client-cert").join(" + ");
            let (start, end) = wanted.split_once('…').unwrap_or((wanted, ""));
            let fits = if wanted.contains('…') {
                seen.starts_with(start) && seen.ends_with(end)
            } else {
                seen == wanted
            };
            assert!(fits && (seen.contains("forged") == wanted.contains("forged")), "{mode}: {seen}");
        }
    }
}

#[test]
fn a_workload_says_of_its_callers_what_the_mesh_or_its_pod_says() {
    let (app, town) = (Origin::h1().reply("hello"), Town::of(&["shop/till", "shop/clerk"]));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  namespace: shop\n  labels: {app: till}\n  \
               annotations: {proxy.istio.io/config: 'proxyHeaders: {forwardedClientCert: SANITIZE}'}\n---\n";
    let set = mesh("proxyHeaders: {forwardedClientCert: SANITIZE_SET}");
    let by = "By=spiffe://cluster.local/ns/shop/sa/till;";
    for (text, start) in [
        (mesh(""), format!("Hash=forged,{by}")),
        (set.clone(), by.to_owned()),
        (mesh("proxyHeaders: {forwardedClientCert: FORWARD_ONLY}"), "Hash=forged".to_owned()),
        (set + pod, String::new()),
    ] {
        let (_proxy, inbound) = town.callee("shop/till", "app=till", &app, &text);
        ask(&dial(&town, "shop/clerk"), inbound);
        let seen = app.last().all("x-forwarded-client-cert").join(" + ");
        assert!(seen.starts_with(&start) && (start.is_empty() == seen.is_empty()), "{text}: {seen}");
        let mut plain = Target::at(inbound).raw();
        plain.send_bytes(FORGED.as_bytes()).read_to_end();
        assert_eq!(app.last().header("x-forwarded-client-cert"), "");
    }
}

#[test]
fn the_client_is_who_the_trusted_proxies_in_front_say() {
    let origin = Origin::h1().reply("hello");
    let allow = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: office}\nspec: {rules: \
                 [{from: [{source: {remoteIpBlocks: [10.1.0.0/16]}}]}]}\n---\n";
    let text = yaml::all_to("HTTP", &[origin.address()]) + allow;
    let ask = |proxy: &Proxy, list: &str| {
        let request = proxy.get(&format!("/{}", list.replace([' ', ','], "-")));
        request.header("x-forwarded-for", list).header("x-forwarded-proto", "https").send().status
    };
    let alone = Proxy::with(&text).start();
    assert_eq!(ask(&alone, "10.1.2.3"), 403, "nobody is trusted to say it");
    let proxy = Proxy::with(text + &mesh("gatewayTopology: {numTrustedProxies: 1}")).start();
    assert_eq!(ask(&proxy, "10.1.2.3"), 200);
    let seen = origin.last();
    assert_eq!(seen.header("x-forwarded-for"), "10.1.2.3,127.0.0.1");
    assert_eq!(
        (seen.header("x-envoy-external-address"), seen.header("x-forwarded-proto")),
        ("10.1.2.3", "https")
    );
    proxy.access_line(&["/10.1.2.3 ", " 10.1.2.3:0 "]);
    // What the client itself put in front is not what the proxy saw.
    assert_eq!(ask(&proxy, "10.1.2.3, 6.6.6.6"), 403);
    assert_eq!(ask(&proxy, "nonsense"), 403);
    assert_eq!(ask(&proxy, "6.6.6.6, 10.1.9.9"), 200);
}
