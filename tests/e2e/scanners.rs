//! TLS as tools of others see it: a scanner that looks for weaknesses, and a load tester behind mutual TLS.

use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::tools::{needs, run};
use crate::support::{Origin, Proxy, Target, Town, yaml};
use serde_json::Value;
use std::process::Command;

/// A gateway that serves `shop.example` by TLS, and what `pilotlight certs` makes for it.
fn gateway(origin: &Origin) -> (Directory, String) {
    let directory = Directory::new();
    let made = Command::new(PILOTLIGHT)
        .args(["certs", "--host", "shop.example", "--out"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let home = directory.path().join("hosts/shop.example");
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
         servers:\n  - port: {{number: 8443, name: https, protocol: HTTPS}}\n    hosts: [shop.example]\n    tls: \
         {{mode: SIMPLE, serverCertificate: {0}/tls.crt, privateKey: {0}/tls.key}}\n---\n{1}",
        home.display(),
        yaml::all_to("HTTP", &[origin.address()])
    );
    (directory, text)
}

#[test]
fn a_scanner_finds_nothing_weak() {
    needs!("sslyze");
    let origin = Origin::h1().reply("hello");
    let (directory, text) = gateway(&origin);
    let proxy = Proxy::with(text).start();
    let at = proxy.gateway(8443).address().to_string();
    let file = directory.path().join("scan.json");
    let written = format!("--json_out={}", file.display());
    let looks = "--sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --heartbleed --openssl_ccs --robot --reneg \
                 --compression --early_data --mozilla_config=disable --quiet --sni=shop.example";
    let words: Vec<&str> = looks.split_whitespace().chain([written.as_str(), at.as_str()]).collect();
    let scan = run("python3", &[&["-m", "sslyze"], &words[..]].concat());
    let text = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{scan:?}"));
    let all: Value = serde_json::from_str(&text).unwrap();
    let found = |of: &str, what: &str| {
        let result = &all["server_scan_results"][0]["scan_result"][of];
        assert_eq!(result["status"], "COMPLETED", "{of}: {result}");
        result["result"][what].clone()
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        let suites = found(&format!("{old}_cipher_suites"), "accepted_cipher_suites");
        assert_eq!(suites, serde_json::json!([]), "{old}");
    }
    for new in ["tls_1_2", "tls_1_3"] {
        let suites = found(&format!("{new}_cipher_suites"), "accepted_cipher_suites");
        let names: Vec<_> =
            suites.as_array().unwrap().iter().map(|suite| &suite["cipher_suite"]["name"]).collect();
        let sealed = |name: &&Value| {
            let name = name.as_str().unwrap_or_default();
            let fresh = new == "tls_1_3" || name.starts_with("TLS_ECDHE_");
            fresh && (name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_"))
        };
        assert!(!names.is_empty() && names.iter().all(sealed), "{names:?}");
    }
    for (of, what) in [
        ("heartbleed", "is_vulnerable_to_heartbleed"),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection"),
        ("tls_compression", "supports_compression"),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"),
        ("tls_1_3_early_data", "supports_early_data"),
    ] {
        assert_eq!(found(of, what), false, "{of}");
    }
    let oracle = found("robot", "robot_result");
    assert!(oracle.as_str().is_some_and(|said| said.starts_with("NOT_VULNERABLE")), "{oracle}");
}

/// What h2load says of so many requests to `till.shop`: those answered 2xx.
fn h2load(to: Target, arguments: &[&str]) -> String {
    let at = format!("--connect-to={}", to.address());
    let outcome =
        run("h2load", &[&[&at, "-n", "2000", "-c", "8"], arguments, &["http://till.shop/"]].concat());
    let line = outcome.stdout.lines().find(|line| line.starts_with("status codes:"));
    line.unwrap_or_else(|| panic!("{outcome:?}")).to_owned()
}

#[test]
fn h2load_gets_every_answer_through_mutual_tls() {
    needs!("h2load");
    let (app, town) = (Origin::h1().reply("hello"), Town::of(&["shop/till", "shop/clerk"]));
    let beside = |account: &str, app, text: &str| {
        let (who, certs) = (format!("shop/{account}"), town.file(&format!("shop/{account}")));
        Proxy::with(text).sidecar(&who, "app=x", app).args(["--service-account", account, "--certs", &certs])
    };
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: \
                  shop}\nspec: {mtls: {mode: STRICT}}\n---\n";
    let callee = beside("till", app.address(), strict).start();
    let entry = yaml::service_entry("till.shop", "HTTP", &[callee.inbound(&app).address()])
        .replace("ports: {http:", "labels: {security.istio.io/tlsMode: istio}, ports: {http:");
    let caller = beside("clerk", ([127, 0, 0, 1], 9).into(), &entry).start();
    for version in [&["--h1"][..], &["-m", "10"]] {
        let said = h2load(caller.mesh(), version);
        assert!(said.starts_with("status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    }
    let from = [("source_principal", "spiffe://cluster.local/ns/shop/sa/clerk"), ("response_code", "200")];
    assert_eq!(callee.metrics().sum("istio_requests_total", &from), 4000.0);
}
