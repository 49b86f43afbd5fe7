//! Materials to configurations of rustls: one place says what is spoken, with whom sessions are kept, and for
//! how long. It reads nothing.

use super::cipher::versions;
use super::client::Protocols;
use super::material::{Material, Own, Roots};
use super::server::Terms;
use super::verify::{ClientCheck, Expect, ServerCheck};
use super::{HTTP1, HTTP2, Trust, provider};
use proxy_config::model::{ClientMode, ClientTls, TlsVersion};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;

/// Sessions with destinations kept for each cluster.
const SESSIONS: usize = 64;
/// In force where nothing asks for others, as Istio has it.
const VERSIONS: (TlsVersion, TlsVersion) = (TlsVersion::V12, TlsVersion::V13);

/// How a server answers; what it is called is the caller's to add.
pub(super) fn server_terms(
    own: Own,
    check: Option<Arc<ClientCheck>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    spoken: (TlsVersion, TlsVersion),
    alpn: Vec<Vec<u8>>,
) -> Result<Terms, String> {
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(spoken))
        .map_err(|error| format!("TLS cannot be spoken with these versions and cipher suites: {error}"))?;
    let builder = match &check {
        Some(check) => builder.with_client_cert_verifier(check.clone()),
        None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own.key.clone())));
    config.alpn_protocols = alpn;
    // Sessions live in tickets, under keys of this configuration alone, shared by all workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new().map_err(|error| format!("no keys for session tickets: {error}"))?;
    config.send_tls13_tickets = 1;
    Ok(Terms { config: Arc::new(config), check, face: "".into(), misdirects: false, uri: own.uri })
}

/// How a destination is spoken to.
pub(super) fn client_config(
    material: &Material,
    roots: Arc<Roots>,
    tls: &ClientTls,
    protocols: Protocols,
    mesh: bool,
    trust: &Trust,
) -> Result<Arc<ClientConfig>, String> {
    let expect = match (tls.insecure, mesh) {
        (true, _) => Expect::Nothing,
        (false, true) => Expect::Member(roots, trust.domains.clone(), tls.names.clone()),
        (false, false) if tls.names.is_empty() => Expect::ServerName(roots),
        (false, false) => Expect::Names(roots, tls.names.clone()),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(if mesh { (trust.oldest, TlsVersion::V13) } else { VERSIONS }))
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerCheck(expect)));
    let shows = mesh || tls.mode == ClientMode::Mutual;
    let mut config = match (&material.own, shows) {
        (Some(own), true) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.key.clone())))
        }
        (None, true) => return Err(
            "MUTUAL without a certificate of ours: set clientCertificate and privateKey, or credentialName"
                .to_owned(),
        ),
        (_, false) => builder.with_no_client_auth(),
    };
    let alpn: &[&[u8]] = match (mesh, protocols) {
        (true, Protocols::Http1) => &[b"istio-http/1.1", b"istio", HTTP1],
        (true, Protocols::Http2) => &[b"istio-h2", b"istio", HTTP2],
        (false, Protocols::Http1) => &[HTTP1],
        (false, Protocols::Http2) => &[HTTP2],
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}
