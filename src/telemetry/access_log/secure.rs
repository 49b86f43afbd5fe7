//! The operators about a client's TLS connection and its certificate.

use super::render::Values;
use super::time::TimeFormat;
use crate::record::{Certificate, Record};
use std::time::SystemTime;

/// What of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Version,
    Cipher,
    Sni,
    LocalUri,
    PeerUris,
    PeerDns,
    PeerSubject,
    PeerIssuer,
    PeerSerial,
    PeerFingerprint,
    PeerStart(TimeFormat),
    PeerEnd(TimeFormat),
}

impl Fact {
    /// The operator of this name, if it is one of these.
    pub(super) fn named(name: &str) -> Option<Fact> {
        Some(match name {
            "DOWNSTREAM_TLS_VERSION" => Fact::Version,
            "DOWNSTREAM_TLS_CIPHER" => Fact::Cipher,
            "REQUESTED_SERVER_NAME" => Fact::Sni,
            "DOWNSTREAM_LOCAL_URI_SAN" => Fact::LocalUri,
            "DOWNSTREAM_PEER_URI_SAN" => Fact::PeerUris,
            "DOWNSTREAM_PEER_DNS_SAN" => Fact::PeerDns,
            "DOWNSTREAM_PEER_SUBJECT" => Fact::PeerSubject,
            "DOWNSTREAM_PEER_ISSUER" => Fact::PeerIssuer,
            "DOWNSTREAM_PEER_SERIAL" => Fact::PeerSerial,
            "DOWNSTREAM_PEER_FINGERPRINT_256" => Fact::PeerFingerprint,
            "DOWNSTREAM_PEER_CERT_V_START" => Fact::PeerStart(TimeFormat::iso_millis()),
            "DOWNSTREAM_PEER_CERT_V_END" => Fact::PeerEnd(TimeFormat::iso_millis()),
            _ => return None,
        })
    }

    pub(super) fn put<V: Values + ?Sized>(&self, values: &mut V, record: &Record) {
        let Some(secured) = record.secured.as_deref() else { return values.nothing() };
        let peer = secured.peer.as_ref();
        let of = |fact: fn(&Certificate) -> &str| peer.map(fact).filter(|text| !text.is_empty());
        match self {
            Fact::Version => values.text(Some(secured.version)),
            Fact::Cipher => values.text(Some(secured.cipher)),
            Fact::Sni => values.text(secured.sni.as_deref()),
            Fact::LocalUri => values.text(secured.local_uri.as_deref()),
            Fact::PeerUris => list(values, peer.map(|peer| &peer.uris[..])),
            Fact::PeerDns => list(values, peer.map(|peer| &peer.dns[..])),
            Fact::PeerSubject => values.text(of(|peer| &peer.subject)),
            Fact::PeerIssuer => values.text(of(|peer| &peer.issuer)),
            Fact::PeerSerial => values.text(of(|peer| &peer.serial)),
            Fact::PeerFingerprint => values.text(of(|peer| &peer.sha256)),
            Fact::PeerStart(format) | Fact::PeerEnd(format) => match peer {
                Some(peer) => {
                    let start = matches!(self, Fact::PeerStart(_));
                    let at = if start { peer.not_before } else { peer.not_after };
                    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    values.harmless(|out| format.write(at, out));
                }
                None => values.nothing(),
            },
        }
    }
}

fn list<V: Values + ?Sized>(values: &mut V, names: Option<&[Box<str>]>) {
    match names {
        Some(names) if !names.is_empty() => values.text(Some(&names.join(","))),
        _ => values.nothing(),
    }
}
