//! Whether a certificate is good: the same chain check for both sides, and what each asks beyond it.
//!
//! The check of a client can be asked again about a connection that is open: that is how a connection whose
//! certificate would be refused now is found.

use super::certificate::key_of;
use super::material::Roots;
use super::refusal::Refusal;
use super::{hex, names, provider, sha256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;
use webpki::{EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, UnknownStatusPolicy};

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Whether `leaf` comes from one of `roots` and is valid now.
fn chain<'a>(
    roots: &Roots,
    leaf: &'a CertificateDer<'a>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<EndEntityCert<'a>, Refusal> {
    let certificate = EndEntityCert::try_from(leaf).map_err(|_| Refusal::BadCertificate)?;
    let lists: Vec<&webpki::CertRevocationList<'_>> = roots.revoked.iter().collect();
    let revocation = match webpki::RevocationOptionsBuilder::new(&lists) {
        Ok(options) => Some(
            options
                .with_depth(RevocationCheckDepth::EndEntity)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build(),
        ),
        Err(_) => None,
    };
    certificate
        .verify_for_usage(algorithms().all, roots.anchors(), others, now, usage, revocation, None)
        .map_err(|error| refusal(&error))?;
    Ok(certificate)
}

/// Whether `leaf` comes from one of `roots` directly.
pub(super) fn is_from(roots: &Roots, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
    chain(roots, leaf, &[], now, KeyUsage::server_auth()).is_ok()
}

fn refusal(error: &webpki::Error) -> Refusal {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => Refusal::Expired,
        E::CertNotValidYet { .. } => Refusal::NotYetValid,
        E::CertRevoked | E::CrlExpired { .. } => Refusal::Revoked,
        E::UnknownIssuer
        | E::CaUsedAsEndEntity
        | E::InvalidSignatureForPublicKey
        | E::MaximumSignatureChecksExceeded => Refusal::UnknownAuthority,
        _ => Refusal::BadCertificate,
    }
}

/// What is asked of a client beyond a good chain.
#[derive(Debug)]
pub(super) enum Ask {
    /// A SPIFFE identity of one of these trust domains.
    Member(Vec<String>),
    /// One of the names, one of the keys, one of the certificates; an empty list: any.
    Edge {
        names: Vec<String>,
        /// SHA-256 of the key, in base64.
        keys: Vec<String>,
        /// SHA-256 of the certificate, in lower case hexadecimal.
        certificates: Vec<String>,
    },
}

/// Checks clients.
#[derive(Debug)]
pub(super) struct ClientCheck {
    roots: Arc<Roots>,
    ask: Ask,
    required: bool,
    hints: Vec<DistinguishedName>,
}

impl ClientCheck {
    pub(super) fn new(roots: Arc<Roots>, ask: Ask, required: bool) -> Arc<ClientCheck> {
        let hints = roots.store.subjects();
        Arc::new(ClientCheck { roots, ask, required, hints })
    }

    /// Whether a client without a certificate is refused.
    pub(super) fn is_required(&self) -> bool {
        self.required
    }

    /// Whether a client must be of the mesh.
    pub(super) fn asks_for_members(&self) -> bool {
        self.required && matches!(self.ask, Ask::Member(_))
    }

    /// Whether a client with these certificates may come in at `now`.
    pub(super) fn admits(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let certificate = chain(&self.roots, leaf, others, now, KeyUsage::client_auth())?;
        match &self.ask {
            Ask::Member(domains) => {
                names::member(&certificate, domains).map(|_| ()).ok_or(Refusal::TrustDomain)
            }
            Ask::Edge { names, keys, certificates } => {
                if !names.is_empty() && !names::has_one(&certificate, names) {
                    return Err(Refusal::Name);
                }
                if keys.is_empty() && certificates.is_empty() {
                    return Ok(());
                }
                // Either kind of pin may fit, as with Envoy.
                let of_certificate = || certificates.contains(&hex(&sha256(leaf)));
                let of_key = || key_of(leaf).is_some_and(|key| keys.contains(&base64(&sha256(&key))));
                if of_certificate() || of_key() { Ok(()) } else { Err(Refusal::Pin) }
            }
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Signatures are checked alike, whoever made them.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &algorithms())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let admitted = self.admits(end_entity, intermediates, now);
        admitted.map(|()| ClientCertVerified::assertion()).map_err(Refusal::to_rustls)
    }

    signatures!();
}

/// What is asked of a destination.
#[derive(Debug)]
pub(super) enum Expect {
    /// Nothing: its certificate is not looked at.
    Nothing,
    /// The name that is asked for.
    ServerName(Arc<Roots>),
    /// One of these names.
    Names(Arc<Roots>, Vec<String>),
    /// A SPIFFE identity of these trust domains, and one of these names if there are any.
    Member(Arc<Roots>, Vec<String>, Vec<String>),
}

/// Checks destinations.
#[derive(Debug)]
pub(super) struct ServerCheck(pub(super) Expect);

impl ServerCheck {
    fn admits(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let check = |roots| chain(roots, leaf, others, now, KeyUsage::server_auth());
        match &self.0 {
            Expect::Nothing => Ok(()),
            Expect::ServerName(roots) => {
                let certificate = check(roots)?;
                certificate.verify_is_valid_for_subject_name(name).map_err(|_| Refusal::Name)
            }
            Expect::Names(roots, wanted) => {
                if names::has_one(&check(roots)?, wanted) {
                    Ok(())
                } else {
                    Err(Refusal::Name)
                }
            }
            Expect::Member(roots, domains, wanted) => {
                let certificate = check(roots)?;
                let principal = names::member(&certificate, domains).ok_or(Refusal::TrustDomain)?;
                let named = |name: &String| name.strip_prefix("spiffe://").unwrap_or(name) == principal;
                if wanted.is_empty() || wanted.iter().any(named) || names::has_one(&certificate, wanted) {
                    Ok(())
                } else {
                    Err(Refusal::Name)
                }
            }
        }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let admitted = self.admits(end_entity, intermediates, server_name, now);
        admitted.map(|()| ServerCertVerified::assertion()).map_err(Refusal::to_rustls)
    }

    signatures!();
}
