//! The sides of a call as proxies in this process: mutual TLS from one to another, what changes when trust does, and
//! the places an inbound side grants.

// Tests measure real time, and an unmet expectation is a panic.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod foreign;
#[path = "../e2e/support/frames.rs"]
#[allow(dead_code)]
mod frames;
mod goaway;
mod inbound;
#[path = "../e2e/support/secure.rs"]
#[allow(dead_code)]
mod secure;
mod stage;
mod unsent;

use pilotlight::cli::certs::Authority;
use proxy_config::model::{ClientMode, ClientTls, Config, Direction, ListenerTls, Mtls};
use stage::{DEADLINE, Folder, Proxy, again, config, guarded, head, mirror, to_mesh};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn inbound(mode: Mtls, application: SocketAddr) -> Config {
    guarded(config(Direction::Inbound, ListenerTls::Mesh(Vec::new()), application, None), mode)
}

fn outbound(to: &Proxy, tls: Option<ClientTls>) -> Config {
    config(Direction::Outbound, ListenerTls::Plain, to.address, tls)
}

/// A caller `a` and a callee `b` of one authority, each beside its proxy.
struct Pair {
    authority: Authority,
    near: Folder,
    far: Folder,
}

impl Pair {
    fn new() -> Pair {
        let authority = Authority::new("td").unwrap();
        let (near, far) = (Folder::of(&authority, "a"), Folder::of(&authority, "b"));
        Pair { authority, near, far }
    }
}

fn check(mode: Mtls, tls: Option<ClientTls>, wanted: &str, security: &str) {
    let pair = Pair::new();
    let callee = Proxy::serve(&inbound(mode, mirror()), Some(&pair.far), 1);
    let caller = Proxy::serve(&outbound(&callee, tls), Some(&pair.near), 1);
    let answer = caller.get();
    assert!(answer.starts_with(wanted), "{mode:?}: {answer:?}");
    assert!(!answer.contains("forged"), "{answer}");
    if wanted.contains("200") {
        let security = format!("connection_security_policy=\"{security}\"");
        callee.until(&["istio_requests_total{", &security], " 1");
        let vouched = answer.contains("x-forwarded-client-cert: By=spiffe://td/ns/default/sa/b;Hash=");
        assert_eq!(vouched, security.contains("mutual_tls"), "{answer}");
    }
    if vouches(&answer) {
        assert!(answer.contains(";Subject=\"\";URI=spiffe://td/ns/default/sa/a\r\n"), "{answer}");
        callee.until(&["istio_requests_total{", "source_principal=\"spiffe://td/ns/default/sa/a\""], " 1");
        callee.until(&["istio_requests_total{", "source_workload_namespace=\"default\""], " 1");
        callee.until(&["pilotlight_tls_handshakes_total{side=\"downstream\"}"], " 1");
        caller.until(&["pilotlight_tls_handshakes_total{side=\"upstream\"}"], " 1");
    }
}

fn vouches(answer: &str) -> bool {
    answer.contains("x-forwarded-client-cert: By=")
}

#[test]
fn each_mode_lets_in_what_istio_lets_in() {
    let mesh = || Some(to_mesh(ClientMode::IstioMutual, &["td/ns/default/sa/b"]));
    let auto = || Some(to_mesh(ClientMode::Auto, &[]));
    check(Mtls::Strict, mesh(), "HTTP/1.1 200", "mutual_tls");
    check(Mtls::Strict, auto(), "HTTP/1.1 200", "mutual_tls");
    check(Mtls::Strict, None, "HTTP/1.1 503", "");
    check(Mtls::Permissive, mesh(), "HTTP/1.1 200", "mutual_tls");
    check(Mtls::Permissive, None, "HTTP/1.1 200", "none");
    check(Mtls::Disable, mesh(), "HTTP/1.1 503", "");
    check(Mtls::Disable, None, "HTTP/1.1 200", "none");
    check(Mtls::Strict, Some(to_mesh(ClientMode::IstioMutual, &["td/ns/default/sa/x"])), "HTTP/1.1 503", "");
}

#[test]
fn plaintext_where_it_is_not_accepted_is_reset_and_counted_and_where_it_is_metered() {
    let pair = Pair::new();
    let application = mirror();
    let callee = Proxy::serve(&inbound(Mtls::Strict, application), Some(&pair.far), 1);
    assert_eq!(callee.get(), "");
    callee.until(&["pilotlight_faults_total{fault=\"PlaintextRefused\"}"], " 1");
    callee.publish(&inbound(Mtls::Permissive, application));
    assert!(callee.get().starts_with("HTTP/1.1 200"));
    callee.until(&["pilotlight_plaintext_connections_total"], " 1");
}

#[test]
fn without_a_certificate_nothing_goes_in_plaintext_and_nobody_is_let_in() {
    let pair = Pair::new();
    let application = mirror();
    let callee = Proxy::serve(&inbound(Mtls::Permissive, application), Some(&pair.far), 1);
    for mode in [ClientMode::IstioMutual, ClientMode::Auto] {
        let caller = Proxy::serve(&outbound(&callee, Some(to_mesh(mode, &[]))), None, 1);
        assert!(caller.get().starts_with("HTTP/1.1 503"));
        caller.until(&["pilotlight_faults_total{fault=\"UpstreamTlsUnprepared\"}"], " 1");
    }
    let bare = Proxy::serve(&inbound(Mtls::Strict, application), None, 1);
    assert_eq!(bare.get(), "");
    let caller = Proxy::serve(&outbound(&bare, Some(to_mesh(ClientMode::Auto, &[]))), Some(&pair.near), 1);
    assert!(caller.get().starts_with("HTTP/1.1 503"));
    bare.until(&["pilotlight_faults_total{fault=\"NoCertificate\"}"], " 1");
}

/// A caller with another certificate is refused with a named reason.
fn check_refused(authority: &Authority, domain: &str, seconds: i64, reason: &str) {
    let pair = Pair::new();
    let callee = Proxy::serve(&inbound(Mtls::Strict, mirror()), Some(&pair.far), 1);
    pair.near.put(authority, "a", seconds);
    pair.near.trust(&[&pair.authority]);
    if domain != "td" {
        // Of a trusted authority, so that the domain is all that is wrong.
        pair.far.trust(&[&pair.authority, authority]);
        callee.rotate(&inbound(Mtls::Strict, mirror()));
    }
    let tls = to_mesh(ClientMode::IstioMutual, &[]);
    let caller = Proxy::serve(&outbound(&callee, Some(tls)), Some(&pair.near), 1);
    let answer = caller.get();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    callee.until(&["pilotlight_faults_total{fault=\"PeerRefused\"}"], " 1");
    let reason = format!("reason=\"{reason}\"");
    callee.until(&["pilotlight_tls_handshakes_failed_total{side=\"downstream\"", &reason], " 1");
}

#[test]
fn peers_that_have_expired_or_belong_elsewhere_are_refused_by_name() {
    let other = Authority::new("other").unwrap();
    check_refused(&other, "other", 3600, "trust_domain");
    check_refused(&Authority::new("td").unwrap(), "td", 3600, "unknown_authority");
}

/// Open connections of every kind, then something that would refuse them: none serves another exchange.
fn check_tightened(pair: &Pair, before: &Config, tls: Option<ClientTls>, tighten: impl Fn(&Proxy)) {
    let callee = Proxy::serve(before, Some(&pair.far), 1);
    // A plaintext caller speaks to the callee itself, one with a certificate through a proxy of its own.
    let caller = tls.map(|tls| Proxy::serve(&outbound(&callee, Some(tls)), Some(&pair.near), 1));
    let entrance = caller.as_ref().unwrap_or(&callee);
    let mut open = entrance.connect();
    assert_eq!(again(&mut open), "HTTP/1.1 200 OK");
    let mut socket = entrance.connect();
    let upgrade = "GET / HTTP/1.1\r\nhost: b\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).unwrap();
    assert!(head(&mut socket).unwrap().starts_with("HTTP/1.1 101"));
    socket.write_all(b"ping").unwrap();
    let mut pong = [0; 4];
    socket.read_exact(&mut pong).unwrap();
    let served = |proxy: &Proxy| {
        let lines = proxy.metrics();
        let counted =
            lines.lines().filter(|l| l.starts_with("istio_requests_total{") && l.contains("=\"200\""));
        counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    callee.until(&["istio_requests_total{"], " 1");
    tighten(&callee);
    let answered = again(&mut open);
    assert!(!answered.contains("200"), "{answered}");
    assert_eq!(served(&callee), 1);
    // The tunnel ends within the drain's time.
    let began = Instant::now();
    let mut rest = Vec::new();
    let ended = socket.read_to_end(&mut rest);
    assert!(began.elapsed() < DEADLINE, "{ended:?}");
    assert_eq!(rest, b"");
    callee.until(&["pilotlight_faults_total{fault=\"TrustEnded\"}"], "");
}

#[test]
fn connections_that_would_be_refused_now_serve_no_more() {
    let application = mirror();
    let mesh = || Some(to_mesh(ClientMode::IstioMutual, &[]));
    let strict = inbound(Mtls::Strict, application);
    let permissive = inbound(Mtls::Permissive, application);
    let pair = Pair::new();
    check_tightened(&pair, &permissive, None, |callee| {
        callee.publish(&strict);
    });
    let new = Authority::new("td").unwrap();
    check_tightened(&pair, &strict, mesh(), |callee| {
        pair.far.trust(&[&new]);
        callee.rotate(&strict);
    });
    let pair = Pair::new();
    pair.near.put(&pair.authority, "a", 3);
    check_tightened(&pair, &strict, mesh(), |_| std::thread::sleep(Duration::from_millis(3100)));
}

#[test]
fn certificates_are_rotated_under_load_without_a_failure() {
    let pair = Pair::new();
    let into = inbound(Mtls::Strict, mirror());
    let callee = Proxy::serve(&into, Some(&pair.far), 2);
    let out = outbound(&callee, Some(to_mesh(ClientMode::IstioMutual, &["td/ns/default/sa/b"])));
    let caller = Proxy::serve(&out, Some(&pair.near), 2);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let mut stream = caller.connect();
                        (0..20).for_each(|_| assert_eq!(again(&mut stream), "HTTP/1.1 200 OK"));
                    }
                })
            })
            .collect();
        while clients.iter().any(|client| !client.is_finished()) {
            pair.far.put(&pair.authority, "b", 3600);
            callee.rotate(&into);
            pair.near.put(&pair.authority, "a", 3600);
            caller.rotate(&out);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    callee.until(&["istio_requests_total{", "response_code=\"200\""], " 1600");
}
