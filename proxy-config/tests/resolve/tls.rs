//! Certificates of gateways: what their servers show and ask for, and what is said when it cannot be had.

use crate::view::{findings, load_files, load_text, routes_at};
use proxy_config::load::{Loaded, Options};
use proxy_config::model::{ListenerTls, Pem, ServerMode, TlsServer, TlsVersion};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\naGlkZGVu\n-----END PRIVATE KEY-----\n";

/// A Secret with these keys, each holding what its name says.
fn secret(namespace: &str, name: &str, keys: &[&str]) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n"
    );
    for key in keys {
        let pem = if key.contains("key") { KEY } else { CERTIFICATE };
        text.push_str(&format!("  {key}: {}\n", serde_yaml_line(pem)));
    }
    text
}

fn serde_yaml_line(text: &str) -> String {
    format!("\"{}\"", text.replace('\n', "\\n"))
}

fn gateway(servers: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: door, namespace: \
         shop}}\nspec: {{servers: [{servers}]}}\n"
    )
}

fn https(tls: &str) -> String {
    gateway(&format!(
        "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*.shop.org'], tls: {tls}}}"
    ))
}

fn servers(loaded: &Loaded) -> &[TlsServer] {
    match &loaded.config.listeners[0].tls {
        ListenerTls::Servers(servers) => servers,
        other => panic!("{other:?} {:?}", findings(loaded)),
    }
}

fn from(pem: Option<&Pem>) -> String {
    pem.map_or("-".to_owned(), |pem| match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text { from, .. } => from.clone(),
    })
}

#[test]
fn a_server_shows_the_certificate_that_it_names() {
    let check = |text: &str, mode: ServerMode, certificate: &str, roots: &str, missing: bool| {
        let loaded = load_files(&[("conf/a.yaml", text)], &Options::default(), None);
        let server = &servers(&loaded)[0];
        assert_eq!(server.mode, mode, "{text}");
        assert_eq!(from(server.credential.pair.as_ref().map(|(c, _)| c)), certificate, "{text}");
        assert_eq!(from(server.credential.roots.as_ref()), roots, "{text}");
        assert_eq!(server.credential.missing.is_some(), missing, "{text} {:?}", server.credential);
        let told = findings(&loaded).iter().any(|line| line.contains("IST0101") || line.contains("IST0161"));
        assert_eq!(told, missing, "{text} {:?}", findings(&loaded));
    };
    let simple = https("{mode: SIMPLE, credentialName: own}");
    let mutual = https("{mode: MUTUAL, credentialName: own}");
    let pair = ["tls.crt", "tls.key"];
    let with = |gateway: &str, secrets: &[String]| gateway.to_owned() + &secrets.concat();
    let own = secret("shop", "own", &pair);
    check(
        &with(&simple, std::slice::from_ref(&own)),
        ServerMode::Simple,
        "Secret shop/own tls.crt",
        "-",
        false,
    );
    let old = secret("shop", "own", &["cert", "key", "cacert"]);
    check(&with(&simple, std::slice::from_ref(&old)), ServerMode::Simple, "Secret shop/own cert", "-", false);
    check(
        &with(&mutual, &[old]),
        ServerMode::Mutual,
        "Secret shop/own cert",
        "Secret shop/own cacert",
        false,
    );
    let beside = secret("shop", "own-cacert", &["ca.crt"]);
    let roots = "Secret shop/own-cacert ca.crt";
    check(
        &with(&mutual, &[own.clone(), beside]),
        ServerMode::Mutual,
        "Secret shop/own tls.crt",
        roots,
        false,
    );
    check(
        &with(&mutual, std::slice::from_ref(&own)),
        ServerMode::Mutual,
        "Secret shop/own tls.crt",
        "-",
        true,
    );
    // Where gateways stand.
    let system = secret("istio-system", "own", &pair);
    check(&with(&simple, &[system]), ServerMode::Simple, "Secret istio-system/own tls.crt", "-", false);
    let elsewhere = secret("else", "own", &pair);
    check(&with(&simple, std::slice::from_ref(&elsewhere)), ServerMode::Simple, "-", "-", true);
    let named = https("{mode: SIMPLE, credentialName: 'kubernetes-gateway://else/own'}");
    check(&with(&named, &[elsewhere]), ServerMode::Simple, "Secret else/own tls.crt", "-", false);
    check(&with(&simple, &[secret("shop", "own", &["tls.crt"])]), ServerMode::Simple, "-", "-", true);
    check(&https("{mode: ISTIO_MUTUAL}"), ServerMode::IstioMutual, "-", "-", false);
    let files =
        https("{mode: MUTUAL, serverCertificate: a.crt, privateKey: /b.key, caCertificates: c/ca.crt}");
    check(&files, ServerMode::Mutual, "conf/a.crt", "conf/c/ca.crt", false);
}

#[test]
fn nothing_of_a_secret_is_ever_shown() {
    let bad = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: own, namespace: shop}\ntype: \
               kubernetes.io/tls\ndata: {tls.crt: 'hunter2 hunter2', password: 12345}\nstringData: {tls.key: hunter2}\n";
    let text = https("{mode: SIMPLE, credentialName: own}") + bad;
    let loaded = load_text(&text);
    let report = format!("{}{}", loaded.report.text(), loaded.report.json());
    assert!(!report.contains("hunter2") && !report.contains("12345"), "{report}");
    let said = findings(&loaded);
    let line = |what: &str| assert!(said.iter().any(|line| line.contains(what)), "{what}: {said:#?}");
    line("invalid base64");
    line("not PEM");
    line("must be a string");
    let good = https("{mode: SIMPLE, credentialName: own}") + &secret("shop", "own", &["tls.crt", "tls.key"]);
    let loaded = load_text(&good);
    let shown = format!("{loaded:?}{}", loaded.report.json());
    assert!(!shown.contains("c2VjcmV0") && !shown.contains("aGlkZGVu"), "{shown}");
}

#[test]
fn settings_of_a_server_are_checked_as_istio_does() {
    let check = |servers: &str, expected: &str| {
        let loaded = load_text(&gateway(servers));
        assert!(
            findings(&loaded).iter().any(|line| line.contains(expected)),
            "{servers}: {:?}",
            findings(&loaded)
        );
    };
    let server = |protocol: &str, tls: &str| {
        format!("{{port: {{number: 443, name: a, protocol: {protocol}}}, hosts: ['*'], tls: {tls}}}")
    };
    check(&server("HTTPS", "{mode: SIMPLE}"), "SIMPLE TLS requires a server certificate");
    check(&server("HTTPS", "{mode: SIMPLE, serverCertificate: a}"), "SIMPLE TLS requires a private key");
    let files = "serverCertificate: a, privateKey: b";
    check(&server("HTTPS", &format!("{{mode: MUTUAL, {files}}}")), "MUTUAL TLS requires a client CA bundle");
    check(
        &server("HTTPS", "{mode: ISTIO_MUTUAL, credentialName: a}"),
        "cannot have associated credentialName",
    );
    check(&server("HTTP", &format!("{{mode: SIMPLE, {files}}}")), "cannot have TLS settings for plain text");
    check("{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*']}", "must have TLS settings");
    check(
        "{port: {number: 80, name: a, protocol: HTTP, targetPort: 81}, hosts: ['*']}",
        "targetPort has no impact",
    );
    let simple = |rest: &str| server("HTTPS", &format!("{{mode: SIMPLE, {files}, {rest}}}"));
    check(&simple("cipherSuites: [NONE-SUCH]"), "ignoring invalid cipher suite");
    check(&simple("cipherSuites: [AES128-SHA]"), "too weak");
    check(&simple("minProtocolVersion: TLSV1_0"), "TLS 1.2 is the oldest");
    check(&simple("minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2"), "above maxProtocolVersion");
    check(&simple("verifyCertificateHash: [xyz]"), "not a SHA-256");
    check(&simple("subjectAltNames: [a]"), "does not ask for");
    check(&server("HTTPS", "{mode: AUTO_PASSTHROUGH}"), "does not act yet");
    check(&server("TLS", &format!("{{mode: SIMPLE, {files}}}")), "TCP inside TLS does not act yet");
    check(
        &(simple("minProtocolVersion: TLSV1_2")
            + ", {port: {number: 443, name: b, protocol: HTTP}, hosts: ['*']}"),
        "speaks TLS already",
    );
}

#[test]
fn versions_and_ciphers_reach_the_model() {
    let tls = "{mode: SIMPLE, serverCertificate: a, privateKey: b, minProtocolVersion: TLSV1_3, cipherSuites: \
               [ECDHE-RSA-AES128-GCM-SHA256, AES128-SHA], verifyCertificateHash: ['AA:\
               BB0000000000000000000000000000000000000000000000000000000000:CC']}";
    let loaded = load_text(&https(tls));
    let server = &servers(&loaded)[0];
    assert_eq!(server.versions, (TlsVersion::V13, TlsVersion::V13));
    assert_eq!(server.ciphers, ["ECDHE-RSA-AES128-GCM-SHA256"]);
    assert!(server.client_hash[0].starts_with("aabb00") && server.client_hash[0].len() == 64);
    assert_eq!(server.hosts, ["*.shop.org"]);
}

const ROUTED: &str = "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vault, namespace: shop}
spec:
  hosts: [vault.internal, spare.internal]
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: r, namespace: shop}
spec:
  hosts: [a.shop.org, b.shop.org]
  gateways: [door]
  http: [{route: [{destination: {host: vault.internal, port: {number: 80}}}]}]
  tls:
  - match: [{sniHosts: [a.shop.org], port: 443}]
    route: [{destination: {host: vault.internal}, weight: 9}, {destination: {host: spare.internal}, weight: 1}]
  - match: [{sniHosts: [b.shop.org], port: 444}]
    route: [{destination: {host: spare.internal, port: {number: 443}}}]
";

#[test]
fn what_passes_through_goes_by_the_name_that_is_asked_for() {
    let text =
        gateway("{port: {number: 443, name: t, protocol: TLS}, hosts: ['*.shop.org'], tls: {}}") + ROUTED;
    let loaded = load_text(&text);
    assert_eq!(findings(&loaded), Vec::<String>::new());
    let server = &servers(&loaded)[0];
    assert_eq!(server.mode, ServerMode::Passthrough);
    let routes: Vec<_> = server.sni_routes.iter().map(|r| (r.names.clone(), r.clusters.clone())).collect();
    let expected =
        vec![("outbound|443||vault.internal".to_owned(), 9), ("outbound|443||spare.internal".to_owned(), 1)];
    assert_eq!(routes, [(vec!["a.shop.org".to_owned()], expected)]);
    // Nothing of it is HTTP.
    assert_eq!(routes_at(&loaded.config, "gateway:443"), Vec::<String>::new());
    let none = load_text(&(https("{mode: SIMPLE, serverCertificate: a, privateKey: b}") + ROUTED));
    assert!(findings(&none)[0].contains("mode: PASSTHROUGH"), "{:?}", findings(&none));
}

#[test]
fn a_name_that_the_hosts_do_not_cover_is_an_error() {
    let text = gateway("{port: {number: 443, name: t, protocol: TLS}, hosts: ['*.shop.org'], tls: {}}")
        + &ROUTED.replace("sniHosts: [b.shop.org]", "sniHosts: [c.shop.org]");
    let said = findings(&load_text(&text));
    assert!(said.iter().any(|line| line.contains("not a compatible subset")), "{said:?}");
}

#[test]
fn https_redirect_sends_every_request_of_its_hosts_away() {
    let text = gateway(
        "{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*.shop.org'], tls: {httpsRedirect: true}},
         {port: {number: 80, name: i, protocol: HTTP}, hosts: [b.shop.org]},
         {port: {number: 443, name: s, protocol: HTTPS}, hosts: ['*.shop.org'], tls: {mode: SIMPLE, \
         serverCertificate: a, privateKey: b}}",
    ) + ROUTED.split("  tls:").next().unwrap();
    let loaded = load_text(&text);
    let redirect = "-> redirect 301";
    let to = "-> outbound|80||vault.internal=1";
    let at = |start: &str| routes_at(&loaded.config, start);
    assert_eq!(at("gateway:80 a.shop.org"), [redirect]);
    assert_eq!(at("gateway:80 *.shop.org"), [redirect]);
    assert_eq!(at("gateway:80 b.shop.org"), [to]);
    assert_eq!(at("gateway:443 a.shop.org"), [to]);
}
