//! TLS that is the program's own business: unopened to its port, or refused.

use crate::stage::{DEADLINE, Folder, Proxy, config, guarded};
use pilotlight::cli::certs::Authority;
use proxy_config::model::{Config, Direction, Guard, ListenerTls, Mtls, ObjectRef, OwnPort};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

/// A program that sends back every byte.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    address
}

/// The first message of a client that knows nothing of the mesh.
fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from("till.example").unwrap();
    let mut out = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut out).unwrap();
    out
}

fn inbound(mode: Mtls, opaque: bool, program: SocketAddr) -> Config {
    let own = OwnPort { port: 8080, cluster: "to".to_owned(), opaque, ..OwnPort::default() };
    guarded(config(Direction::Inbound, ListenerTls::Mesh(vec![own]), program, None), mode)
}

fn check_refused(config: &Config) {
    let folder = Folder::of(&Authority::new("td").unwrap(), "b");
    let proxy = Proxy::serve(config, Some(&folder), 1);
    let mut stream = proxy.connect();
    stream.write_all(&hello()).unwrap();
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_err(), "it is reset: {rest:?}");
    proxy.until(&["pilotlight_faults_total{fault=\"ForeignTls\"}"], " 1");
}

#[test]
fn the_tls_of_others_is_reset_where_http_is_declared_or_a_policy_asks() {
    check_refused(&inbound(Mtls::Permissive, false, echo()));
    let mut asked = inbound(Mtls::Permissive, true, echo());
    let quarantined = vec![ObjectRef::default()];
    asked.guards =
        asked.guards.into_iter().map(|g| Guard { quarantined: quarantined.clone(), ..g }).collect();
    check_refused(&asked);
}

#[test]
fn the_tls_of_others_reaches_the_program_unopened_until_nobody_else_may_come() {
    let program = echo();
    let folder = Folder::of(&Authority::new("td").unwrap(), "b");
    for mode in [Mtls::Permissive, Mtls::Disable] {
        let proxy = Proxy::serve(&inbound(mode, true, program), Some(&folder), 1);
        let (mut stream, sent) = (proxy.connect(), hello());
        stream.write_all(&sent).unwrap();
        let mut came = vec![0; sent.len()];
        stream.read_exact(&mut came).unwrap();
        assert_eq!(came, sent);
        proxy.publish(&inbound(Mtls::Strict, true, program));
        let began = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(began.elapsed() < DEADLINE, "{mode:?}");
        proxy.until(&["pilotlight_faults_total{fault=\"TrustEnded\"}"], " 1");
    }
}
