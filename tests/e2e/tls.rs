//! TLS at gateways and towards destinations, with the clients people have: curl and openssl.

use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::tools::{self, needs};
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, seconds, yaml};
use std::net::SocketAddr;
use std::process::Command;

/// An authority with certificates for the hosts of these tests, and for a workload.
fn certificates() -> Directory {
    let directory = Directory::new();
    issue(&directory, &["default/gateway", "default/client"]);
    directory
}

fn issue(directory: &Directory, workloads: &[&str]) {
    let mut command = Command::new(PILOTLIGHT);
    command.args(["certs", "--out"]).arg(directory.path());
    command
        .args(["--host", "shop.example", "--host", "other.example", "--host", "localhost"])
        .args(workloads);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn file(directory: &Directory, name: &str) -> String {
    directory.path().join(name).display().to_string()
}

/// A Gateway server on port 8443 for `host`, with its own certificate.
fn server(directory: &Directory, host: &str, tls: &str) -> String {
    let home = file(directory, &format!("hosts/{host}"));
    format!(
        "  - port: {{number: 8443, name: https-{}, protocol: HTTPS}}\n    hosts: [{host}]\n    tls: \
         {{serverCertificate: {home}/tls.crt, privateKey: {home}/tls.key, {tls}}}\n",
        host.replace('.', "-")
    )
}

fn gateway(servers: &[String], origin: SocketAddr) -> String {
    let hosts = "[shop.example, other.example, third.example]";
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
         servers:\n{}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: all}}\nspec:\n  \
         hosts: {hosts}\n  gateways: [edge]\n  http:\n  - route:\n    - destination: {{host: origin.test, port: \
         {{number: 80}}}}\n---\n{}",
        servers.concat(),
        yaml::service_entry("origin.test", "HTTP", &[origin])
    )
}

/// What curl says about a request to `host` at the TLS port.
fn curl(proxy: &Proxy, directory: &Directory, host: &str, more: &[&str]) -> tools::Outcome {
    let at = proxy.gateway(8443).address();
    let resolve = format!("{host}:{}:{}", at.port(), at.ip());
    let (url, ca) = (format!("https://{host}:{}/", at.port()), file(directory, "ca.crt"));
    let mut arguments = vec!["--resolve", &resolve, "--cacert", &ca];
    arguments.extend(["-w", "\n%{http_code} %{http_version}", &url]);
    arguments.extend(more);
    tools::curl(&arguments)
}

#[test]
fn a_gateway_terminates_tls_by_name_and_speaks_what_was_agreed_on() {
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let servers = ["shop.example", "other.example"].map(|host| server(&directory, host, "mode: SIMPLE"));
    let proxy = Proxy::with(gateway(&servers, origin.address())).access_log("text").start();
    for (host, version, wanted) in [
        ("shop.example", "--http2", "200 2"),
        ("shop.example", "--http1.1", "200 1.1"),
        ("other.example", "--http2", "200 2"),
        ("shop.example", "--tlsv1.3", "200 2"),
        ("shop.example", "--tls-max=1.2", "200 2"),
    ] {
        let version: Vec<&str> = version.split('=').collect();
        let outcome = curl(&proxy, &directory, host, &version);
        assert!(outcome.stdout.ends_with(wanted), "{host} {version:?}: {outcome:?}");
    }
    assert_eq!(origin.last().header("x-forwarded-proto"), "https");
    proxy.access_line(&["shop.example", "200"]);
    let nobody = curl(&proxy, &directory, "third.example", &[]);
    assert!(!nobody.success, "{nobody:?}");
    let unknown = || proxy.metrics().sum("pilotlight_faults_total", &[("fault", "UnknownServerName")]);
    assert!(becomes_true(seconds(10), || unknown() >= 1.0));
    // One connection, a host of another certificate.
    let misdirected = curl(&proxy, &directory, "shop.example", &["-H", "Host: other.example"]);
    assert!(misdirected.stdout.ends_with("421 2"), "{misdirected:?}");
}

#[test]
fn clients_show_certificates_where_the_gateway_asks_for_them() {
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let mutual = format!("mode: MUTUAL, caCertificates: {}", file(&directory, "ca.crt"));
    let servers = [server(&directory, "shop.example", &mutual)];
    let proxy = Proxy::with(gateway(&servers, origin.address())).start();
    let without = curl(&proxy, &directory, "shop.example", &[]);
    assert!(!without.stdout.contains("200"), "{without:?}");
    let home = |name: &str| file(&directory, &format!("default/client/{name}"));
    let (chain, key) = (home("cert-chain.pem"), home("key.pem"));
    let with = curl(&proxy, &directory, "shop.example", &["--cert", &chain, "--key", &key]);
    assert!(with.stdout.ends_with("200 2"), "{with:?}");
    let vouched = origin.last().header("x-forwarded-client-cert").to_owned();
    assert!(vouched.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{vouched}");
}

#[test]
fn versions_outside_those_allowed_are_refused() {
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let servers = [server(&directory, "shop.example", "mode: SIMPLE, minProtocolVersion: TLSV1_3")];
    let proxy = Proxy::with(gateway(&servers, origin.address())).start();
    assert!(curl(&proxy, &directory, "shop.example", &[]).stdout.ends_with("200 2"));
    let old = curl(&proxy, &directory, "shop.example", &["--tls-max", "1.2"]);
    assert!(!old.success, "{old:?}");
}

#[test]
fn connections_pass_through_unopened_to_who_answers_for_their_name() {
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let servers = [server(&directory, "shop.example", "mode: SIMPLE")];
    let behind = Proxy::with(gateway(&servers, origin.address())).start();
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
         servers:\n  - port: {{number: 8443, name: tls, protocol: TLS}}\n    hosts: [shop.example]\n    tls: {{mode: \
         PASSTHROUGH}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: pass}}\nspec:\n  \
         hosts: [shop.example]\n  gateways: [edge]\n  tls:\n  - match: [{{sniHosts: [shop.example]}}]\n    route:\n    - \
         destination: {{host: behind.test, port: {{number: 443}}}}\n---\n{}",
        yaml::service_entry("behind.test", "TLS", &[behind.gateway(8443).address()])
            .replace("number: 80", "number: 443")
    );
    let proxy = Proxy::with(text).start();
    let outcome = curl(&proxy, &directory, "shop.example", &[]);
    assert!(outcome.stdout.ends_with("200 2"), "{outcome:?}");
    assert!(becomes_true(seconds(10), || {
        let metrics = proxy.metrics();
        metrics.sum("pilotlight_passthrough_connections_opened_total", &[]) == 1.0
            && metrics.sum("pilotlight_passthrough_sent_bytes_total", &[]) > 1000.0
            && metrics.sum("pilotlight_passthrough_connections", &[]) == 0.0
    }));
}

#[test]
fn sessions_are_resumed_whichever_worker_answers() {
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let servers = [server(&directory, "shop.example", "mode: SIMPLE")];
    let proxy = Proxy::with(gateway(&servers, origin.address())).workers(4).start();
    needs!("openssl");
    let at = proxy.gateway(8443).address().to_string();
    let session = file(&directory, "session");
    let basics = ["s_client", "-connect", &at, "-servername", "shop.example", "-tls1_2"];
    let first = [&basics[..], &["-sess_out", &session]].concat();
    let said = tools::run("openssl", &first);
    assert!(said.stdout.contains("New, TLSv1.2"), "{said:?}");
    for _ in 0..8 {
        let again = [&basics[..], &["-sess_in", &session]].concat();
        let said = tools::run("openssl", &again);
        assert!(said.stdout.contains("Reused, TLSv1.2"), "{said:?}");
    }
}

#[test]
fn certificates_in_files_are_replaced_under_load_without_a_failure() {
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let servers = [server(&directory, "shop.example", "mode: SIMPLE")];
    let proxy = Proxy::with(gateway(&servers, origin.address())).start();
    let reloads = || proxy.logs("certificates have changed");
    for _ in 0..5 {
        issue(&directory, &[]);
        for _ in 0..5 {
            let outcome = curl(&proxy, &directory, "shop.example", &[]);
            assert!(outcome.stdout.ends_with("200 2"), "{outcome:?}");
        }
    }
    reloads();
}

#[test]
fn a_secret_that_does_not_fit_is_told_of_and_its_authorities_hold() {
    use base64::Engine;
    let origin = Origin::h1().reply("hello");
    let (directory, other) = (certificates(), certificates());
    let read = |from: &Directory, name: &str| {
        let text = std::fs::read(from.path().join(name)).unwrap();
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let secret = |key: &str, authority: &Directory| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cred}}\ntype: kubernetes.io/tls\ndata: {{tls.crt: {}, \
             tls.key: {}, ca.crt: {}}}\n",
            read(&directory, "hosts/shop.example/tls.crt"),
            read(&directory, &format!("hosts/{key}/tls.key")),
            read(authority, "ca.crt")
        )
    };
    let server = "  - port: {number: 8443, name: https, protocol: HTTPS}\n    hosts: [shop.example]\n    tls: {mode: \
                  MUTUAL, credentialName: cred}\n";
    let text = |secret: String| gateway(&[server.to_owned()], origin.address()) + &secret;
    let proxy = Proxy::with(text(secret("shop.example", &directory))).start();
    let ask = || {
        let home = file(&directory, "default/client");
        let (chain, key) = (format!("{home}/cert-chain.pem"), format!("{home}/key.pem"));
        curl(&proxy, &directory, "shop.example", &["--cert", &chain, "--key", &key]).stdout.ends_with("200 2")
    };
    assert!(ask());
    proxy.write("config.yaml", &text(secret("other.example", &directory)));
    let line = proxy.logs("do not belong together");
    assert!(line.contains("Secret default/cred") && line.contains("stays in force"), "{line}");
    assert!(ask());
    proxy.write("config.yaml", &text(secret("other.example", &other)));
    assert!(becomes_true(seconds(5), || !ask()), "clients of an authority that is gone are refused");
}

#[test]
fn plaintext_is_sent_to_https_where_the_gateway_says_so_and_nothing_is_served() {
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let plain = |name: &str, port: u16, hosts: &str, more: &str| {
        format!("  - port: {{number: {port}, name: {name}, protocol: HTTP}}\n    hosts: [{hosts}]\n{more}")
    };
    let servers = [
        plain("http", 8080, "shop.example", "    tls: {httpsRedirect: true}\n"),
        plain("open", 8081, "other.example", ""),
        server(&directory, "shop.example", "mode: SIMPLE"),
    ];
    let proxy = Proxy::with(gateway(&servers, origin.address())).start();
    let ask = |port: u16, host: &str| proxy.gateway(port).get("/x/y?a=b%20c&d").host(host).send();
    for host in ["shop.example", "shop.example:8080", "SHOP.example"] {
        let answer = ask(8080, host).expect(301);
        assert_eq!(answer.header("location").to_lowercase(), "https://shop.example/x/y?a=b%20c&d");
    }
    let posted = proxy.gateway(8080).post("/x", "secret").host("shop.example").send().expect(301);
    assert_eq!(posted.header("location"), "https://shop.example/x");
    ask(8080, "nobody.example").expect(404);
    assert_eq!(origin.hits(), 0);
    ask(8081, "other.example").expect(200);
    assert!(curl(&proxy, &directory, "shop.example", &[]).stdout.ends_with("200 2"));
}

#[test]
fn a_gateway_of_the_mesh_lets_in_members_and_never_misdirects_them() {
    let origin = Origin::h1().reply("hello");
    let (directory, stranger) = (certificates(), certificates());
    let server = |host: &str| {
        let name = host.replace('.', "-");
        format!(
            "  - port: {{number: 8443, name: https-{name}, protocol: HTTPS}}\n    hosts: [{host}]\n    tls: {{mode: \
             ISTIO_MUTUAL}}\n"
        )
    };
    let text = gateway(&["shop.example", "other.example"].map(server), origin.address());
    let proxy = Proxy::with(text).args(["--certs", &file(&directory, "default/gateway")]).start();
    let home = |from: &Directory, name: &str| file(from, &format!("default/client/{name}"));
    let ask = |from: &Directory, more: &[&str]| {
        let (chain, key) = (home(from, "cert-chain.pem"), home(from, "key.pem"));
        // A member's certificate has no host in it.
        curl(&proxy, &directory, "shop.example", &[&["-k", "--cert", &chain, "--key", &key], more].concat())
    };
    let member = ask(&directory, &[]);
    assert!(member.stdout.ends_with("200 2"), "{member:?}");
    let vouched = origin.last().header("x-forwarded-client-cert").to_owned();
    assert!(vouched.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{vouched}");
    assert!(vouched.starts_with("By=spiffe://cluster.local/ns/default/sa/gateway;"), "{vouched}");
    let elsewhere = ask(&directory, &["-H", "Host: other.example"]);
    assert!(elsewhere.stdout.ends_with("200 2"), "never 421: {elsewhere:?}");
    assert!(!curl(&proxy, &directory, "shop.example", &["-k"]).stdout.contains("200"), "nobody");
    assert!(!ask(&stranger, &[]).stdout.contains("200"), "a member of another mesh");
    let refused = || proxy.metrics().sum("pilotlight_faults_total", &[("fault", "PeerRefused")]);
    assert!(becomes_true(seconds(5), || refused() >= 2.0), "{}", proxy.log());
}

#[test]
fn nothing_weak_is_agreed_on() {
    needs!("openssl");
    let origin = Origin::h1().reply("hello");
    let directory = certificates();
    let proxy =
        Proxy::with(gateway(&[server(&directory, "shop.example", "mode: SIMPLE")], origin.address())).start();
    let at = proxy.gateway(8443).address().to_string();
    let agreed = |more: &[&str]| {
        let basics = ["s_client", "-connect", &at, "-servername", "shop.example", "-legacy_renegotiation"];
        let said = tools::run("openssl", &[&basics[..], more].concat()).stdout;
        let line = said.lines().find(|line| line.contains("Cipher is")).unwrap_or_default().to_owned();
        (!line.contains("(NONE)") && !line.is_empty()).then_some(line)
    };
    for weak in [
        &["-tls1"][..],
        &["-tls1_1"],
        &["-tls1_2", "-cipher", "AES128-SHA"],
        &["-tls1_2", "-cipher", "ECDHE+AES128+SHA1"],
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "3DES"],
        &["-tls1_2", "-cipher", "aNULL"],
        &["-tls1_2", "-cipher", "DHE+AESGCM"],
    ] {
        let all = [weak, &["-cipher"], &["ALL:@SECLEVEL=0"]].concat();
        let asked = if weak.len() == 1 { &all } else { &weak.to_vec() };
        assert_eq!(agreed(asked), None, "{asked:?}");
    }
    for good in [&["-tls1_3"][..], &["-tls1_2"], &["-tls1_2", "-cipher", "ECDHE+AESGCM"]] {
        let line = agreed(good).unwrap_or_else(|| panic!("{good:?}: {}", proxy.log()));
        assert!(line.contains("GCM") || line.contains("CHACHA20"), "{line}");
    }
}
