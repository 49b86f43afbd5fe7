//! "Not sent", from one proxy to another: who is believed, and what becomes of the request.

use crate::inbound;
use crate::stage::{Folder, Proxy, config, head, mirror, to_mesh};
use pilotlight::cli::certs::Authority;
use proxy_config::model::{self, ClientMode, ClientTls, Direction, ListenerTls, Mtls};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An application that answers every request with an error and says that it did nothing; it counts them.
fn liar() -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, hits) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let counted = hits.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counted) = (stream.unwrap(), counted.clone());
            std::thread::spawn(move || {
                while let Some(head) = head(&mut stream) {
                    assert!(!head.contains("x-pilotlight"), "{head}");
                    counted.fetch_add(1, SeqCst);
                    let answer = "HTTP/1.1 503 Service Unavailable\r\nx-pilotlight-unsent: 1\r\ncontent-length: 0\r\n\r\n";
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, hits)
}

/// A caller's side with so many endpoints in turn, that puts endpoints aside for their first error.
fn caller(to: &[SocketAddr], tls: Option<ClientTls>, mesh_tls: bool, folder: &Folder) -> Proxy {
    let mut config = config(Direction::Outbound, ListenerTls::Plain, to[0], tls);
    let endpoint = |&address: &SocketAddr| model::Endpoint { address, weight: 1, mesh_tls };
    config.clusters[0].endpoints = model::Endpoints::Static(to.iter().map(endpoint).collect());
    config.clusters[0].policy.balance = model::Balance::RoundRobin;
    config.clusters[0].policy.outlier = Some(model::Outlier {
        consecutive_5xx: Some(1),
        consecutive_gateway: None,
        interval: Duration::from_secs(1),
        base_ejection: Duration::from_secs(600),
        max_ejection_percent: 100,
        min_health_percent: 0,
    });
    Proxy::serve(&config, Some(folder), 1)
}

/// A POST, which nobody would send twice without knowing.
fn post(proxy: &Proxy) -> String {
    let mut stream = proxy.connect();
    let request = "POST / HTTP/1.1\r\nhost: b\r\nx-pilotlight-unsent: 1\r\ncontent-length: 0\r\nconnection: \
                   close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // Nothing of it is told to clients.
    assert!(!answer.split("\r\n\r\n").next().unwrap().contains("x-pilotlight"), "{answer}");
    answer
}

fn mesh() -> Option<ClientTls> {
    Some(to_mesh(ClientMode::IstioMutual, &[]))
}

fn folders() -> (Folder, Folder) {
    let authority = Authority::new("td").unwrap();
    (Folder::of(&authority, "a"), Folder::of(&authority, "b"))
}

const ELSEWHERE: &str = "pilotlight_sent_elsewhere_total{";

#[test]
fn what_a_sidecar_refuses_before_its_application_has_seen_it_goes_elsewhere_and_is_no_failure() {
    let (near, far) = folders();
    let good = Proxy::serve(&inbound(Mtls::Strict, mirror()), Some(&far), 1);
    let dead = Proxy::serve(&inbound(Mtls::Strict, nowhere()), Some(&far), 1);
    let proxy = caller(&[dead.address, good.address], mesh(), true, &near);
    for _ in 0..10 {
        let answer = post(&proxy);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("x-pilotlight"), "the application is not told either: {answer}");
    }
    // The second choice takes a turn as well: the next request begins at the dead one again.
    proxy.until(&[ELSEWHERE], " 10");
    proxy.until(&["pilotlight_ejections_total{"], " 0");
    // A connection is kept where an answer is set aside: one to each.
    proxy.until(&["pilotlight_tls_handshakes_total{side=\"upstream\"}"], " 2");
}

#[test]
fn a_sidecar_whose_queue_is_full_sends_callers_elsewhere() {
    let (near, far) = folders();
    let good = Proxy::serve(&inbound(Mtls::Strict, mirror()), Some(&far), 1);
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = inbound(Mtls::Permissive, silent.local_addr().unwrap());
    config.clusters[0].concurrency = 1;
    let full = Proxy::serve(&config, Some(&far), 1);
    let waiting: Vec<TcpStream> = (0..11)
        .map(|_| {
            let mut stream = full.connect();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").unwrap();
            stream
        })
        .collect();
    full.until_held(10);
    let proxy = caller(&[full.address, good.address], mesh(), true, &near);
    (0..4).for_each(|_| assert!(post(&proxy).starts_with("HTTP/1.1 200")));
    proxy.until(&[ELSEWHERE], " 4");
    full.until(&["pilotlight_faults_total{fault=\"HoldFull\"}"], " 4");
    // Who came in plaintext has no name, and is told nothing but the refusal.
    assert!(post(&full).starts_with("HTTP/1.1 503"));
    drop(waiting);
}

#[test]
fn with_nobody_else_to_ask_the_refusal_is_passed_on_in_its_own_words() {
    let (near, far) = folders();
    let dead: Vec<Proxy> =
        (0..4).map(|_| Proxy::serve(&inbound(Mtls::Strict, nowhere()), Some(&far), 1)).collect();
    let addresses: Vec<SocketAddr> = dead.iter().map(|proxy| proxy.address).collect();
    for (count, elsewhere) in [(1, " 0"), (2, " 1"), (4, " 2")] {
        let proxy = caller(&addresses[..count], mesh(), true, &near);
        let answer = post(&proxy);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection failure"), "{answer}");
        proxy.until(&[ELSEWHERE], elsewhere);
    }
}

#[test]
fn an_application_that_says_so_is_not_believed_with_a_sidecar_in_front_or_without() {
    let (near, far) = folders();
    let (lying, hits) = liar();
    let (other, others) = liar();
    let sidecars: Vec<Proxy> =
        [lying, other].map(|to| Proxy::serve(&inbound(Mtls::Strict, to), Some(&far), 1)).into();
    let fronts: Vec<SocketAddr> = sidecars.iter().map(|proxy| proxy.address).collect();
    let auto = Some(to_mesh(ClientMode::Auto, &[]));
    let rows = [
        ("plain", caller(&[lying, other], None, false, &near)),
        ("outside the mesh", caller(&[lying, other], auto, false, &near)),
        ("behind a sidecar", caller(&fronts, mesh(), true, &near)),
    ];
    for (number, (what, proxy)) in (1..).zip(rows) {
        assert!(post(&proxy).starts_with("HTTP/1.1 503"), "{what}");
        assert_eq!(hits.load(SeqCst) + others.load(SeqCst), number, "{what}: once");
        proxy.until(&[ELSEWHERE], " 0");
        proxy.until(&["pilotlight_ejections_total{"], " 1");
    }
}
