//! TLS towards destinations, as DestinationRules ask for it: whom the proxy believes, and what it shows.

use crate::support::{Origin, Proxy, Town, yaml};
use std::net::SocketAddr;

/// A destination that speaks TLS: another proxy, at port 8443, for `shop.example`.
fn destination(town: &Town, origin: &Origin, tls: &str) -> Proxy {
    let file = |name: &str| town.file(&format!("hosts/shop.example/{name}"));
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
         servers:\n  - port: {{number: 8443, name: https, protocol: HTTPS}}\n    hosts: ['*']\n    tls: \
         {{serverCertificate: {}, privateKey: {}, {tls}}}\n---\n{}",
        file("tls.crt"),
        file("tls.key"),
        yaml::all_to("HTTP", &[origin.address()])
    );
    Proxy::with(text).start()
}

/// Every host by way of `upstream.test` to `address`, spoken to as `tls` says.
fn towards(address: SocketAddr, protocol: &str, tls: &str) -> String {
    yaml::all_to(protocol, &[address])
        .replace("upstream.test", "shop.example")
        .replace("upstream-test", "shop-example")
        + &yaml::destination_rule("shop.example", &format!("tls: {{{tls}}}"))
}

#[test]
fn a_destination_is_believed_for_its_authority_and_its_name_or_by_order() {
    let (town, other) = (Town::of(&[]), Town::of(&[]));
    town.issue(&["shop.example"], &[]);
    other.issue(&["shop.example"], &[]);
    let origin = Origin::h1().reply("hello");
    let server = destination(&town, &origin, "mode: SIMPLE");
    let at = server.gateway(8443).address();
    let (ca, wrong) = (town.file("ca.crt"), other.file("ca.crt"));
    for (tls, refused) in [
        (format!("mode: SIMPLE, caCertificates: {ca}"), ""),
        (format!("mode: SIMPLE, caCertificates: {ca}, sni: shop.example"), ""),
        (format!("mode: SIMPLE, caCertificates: {ca}, subjectAltNames: [shop.example]"), ""),
        (format!("mode: SIMPLE, caCertificates: {ca}, sni: a.b, subjectAltNames: [x, shop.example]"), ""),
        ("mode: SIMPLE, insecureSkipVerify: true".to_owned(), ""),
        (format!("mode: SIMPLE, caCertificates: {wrong}"), "TLS_error:unknown_authority"),
        // The authorities of this host have never heard of it.
        ("mode: SIMPLE".to_owned(), "TLS_error:unknown_authority"),
        (format!("mode: SIMPLE, caCertificates: {ca}, sni: bank.example"), "TLS_error:name"),
        (format!("mode: SIMPLE, caCertificates: {ca}, subjectAltNames: [bank.example]"), "TLS_error:name"),
        (format!("mode: SIMPLE, caCertificates: {}", town.file("nowhere.crt")), "upstream_tls_unprepared"),
    ] {
        for (protocol, version) in [("HTTP", "HTTP/1.1"), ("HTTP2", "HTTP/2")] {
            let proxy = Proxy::with(towards(at, protocol, &tls)).start();
            let status = proxy.get("/x").host("shop.example").send().status;
            assert_eq!(status, if refused.is_empty() { 200 } else { 503 }, "{tls}: {}", proxy.log());
            match refused {
                "" => drop(server.access_line(&["GET /x ", version, "200"])),
                why => drop(proxy.access_line(&["GET /x ", " 503 UF ", why])),
            }
            if tls.contains("insecure") {
                let warning = proxy.logs("whoever answers is believed");
                assert!(warning.contains("WARN") && warning.contains("SC024"), "{warning}");
            }
        }
    }
    assert_eq!(origin.hits(), 10);
}

#[test]
fn what_is_asked_for_is_the_sni_of_the_rule_or_the_host_of_the_request() {
    let town = Town::of(&[]);
    town.issue(&["shop.example"], &[]);
    let origin = Origin::h1().reply("hello");
    let server = destination(&town, &origin, "mode: SIMPLE");
    let at = server.gateway(8443).address();
    for (sni, asked) in [("", "shop.example"), (", sni: other.example", "other.example")] {
        let tls = format!("mode: SIMPLE, insecureSkipVerify: true{sni}");
        let proxy = Proxy::with(towards(at, "HTTP", &tls)).start();
        proxy.get(&format!("/{asked}")).host("shop.example").send().expect(200);
        // Istio's format ends with the name asked for, and the route.
        let line = server.access_line(&[&format!("GET /{asked} ")]);
        assert!(line.contains(&format!(" {asked} default")), "{line}");
    }
}

#[test]
fn a_certificate_is_shown_to_a_destination_that_asks_for_one() {
    let town = Town::of(&["default/client"]);
    town.issue(&["shop.example"], &[]);
    let origin = Origin::h1().reply("hello");
    let ca = town.file("ca.crt");
    let server = destination(&town, &origin, &format!("mode: MUTUAL, caCertificates: {ca}"));
    let at = server.gateway(8443).address();
    let file = |name: &str| town.file(&format!("default/client/{name}"));
    let pair = format!("clientCertificate: {}, privateKey: {}", file("cert-chain.pem"), file("key.pem"));
    let mutual = format!("mode: MUTUAL, caCertificates: {ca}, {pair}");
    let proxy = Proxy::with(towards(at, "HTTP", &mutual)).start();
    proxy.get("/x").host("shop.example").send().expect(200);
    assert!(origin.last().header("x-forwarded-client-cert").contains("/sa/client"));
    let simple = format!("mode: SIMPLE, caCertificates: {ca}");
    let proxy = Proxy::with(towards(at, "HTTP", &simple)).start();
    proxy.get("/x").host("shop.example").send().expect(503);
    // The key of another.
    let stray = mutual.replace(&file("key.pem"), &town.file("hosts/shop.example/tls.key"));
    let proxy = Proxy::with(towards(at, "HTTP", &stray)).start();
    proxy.get("/x").host("shop.example").send().expect(503);
    proxy.access_line(&["503 UF upstream_tls_unprepared"]);
    assert_eq!(origin.hits(), 1);
}
