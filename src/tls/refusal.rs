//! Why a handshake failed, in a fixed vocabulary: for metrics, logs and faults.

use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys, OtherError, PeerIncompatible};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a handshake, or the certificate of an open connection, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A certificate is asked for, and none came.
    NoCertificate,
    /// Not from an authority in force.
    UnknownAuthority,
    /// No longer valid.
    Expired,
    /// Not valid yet.
    NotYetValid,
    /// Taken back.
    Revoked,
    /// A SPIFFE identity of another trust domain, or none at all.
    TrustDomain,
    /// None of the names asked for.
    Name,
    /// Not one of the pinned certificates or keys.
    Pin,
    /// The certificate is not one, or its signature is wrong.
    BadCertificate,
    /// No version in common.
    Version,
    /// No cipher suite in common.
    Cipher,
    /// No protocol in common.
    Protocol,
    /// No server answers for the name asked for.
    UnknownName,
    /// The other side refused our certificate.
    OurCertificate,
    /// The other side gave up.
    Alert,
    /// What came is not TLS.
    NotTls,
    /// What came is TLS, where none is spoken any more.
    IsTls,
    /// It took too long.
    Timeout,
    /// Too many handshakes at once.
    TooMany,
    /// The other side went away.
    Gone,
    /// Our own certificate cannot be had.
    Unprepared,
}

impl Refusal {
    /// Every one, for metrics.
    pub const ALL: [Refusal; 21] = [
        Refusal::NoCertificate,
        Refusal::UnknownAuthority,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::Revoked,
        Refusal::TrustDomain,
        Refusal::Name,
        Refusal::Pin,
        Refusal::BadCertificate,
        Refusal::Version,
        Refusal::Cipher,
        Refusal::Protocol,
        Refusal::UnknownName,
        Refusal::OurCertificate,
        Refusal::Alert,
        Refusal::NotTls,
        Refusal::IsTls,
        Refusal::Timeout,
        Refusal::TooMany,
        Refusal::Gone,
        Refusal::Unprepared,
    ];

    /// The label's value in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::NoCertificate => "no_certificate",
            Refusal::UnknownAuthority => "unknown_authority",
            Refusal::Expired => "expired",
            Refusal::NotYetValid => "not_yet_valid",
            Refusal::Revoked => "revoked",
            Refusal::TrustDomain => "trust_domain",
            Refusal::Name => "name",
            Refusal::Pin => "pin",
            Refusal::BadCertificate => "bad_certificate",
            Refusal::Version => "version",
            Refusal::Cipher => "cipher",
            Refusal::Protocol => "protocol",
            Refusal::UnknownName => "unknown_name",
            Refusal::OurCertificate => "our_certificate",
            Refusal::Alert => "alert",
            Refusal::NotTls => "not_tls",
            Refusal::IsTls => "is_tls",
            Refusal::Timeout => "timeout",
            Refusal::TooMany => "too_many",
            Refusal::Gone => "gone",
            Refusal::Unprepared => "unprepared",
        }
    }

    /// Whether the other side's certificate is what is wrong.
    pub const fn is_of_peer(self) -> bool {
        matches!(
            self,
            Refusal::NoCertificate
                | Refusal::UnknownAuthority
                | Refusal::Expired
                | Refusal::NotYetValid
                | Refusal::Revoked
                | Refusal::TrustDomain
                | Refusal::Name
                | Refusal::Pin
                | Refusal::BadCertificate
        )
    }

    /// As a verifier says it to rustls; [`Refusal::of`] finds it again.
    pub(super) fn to_rustls(self) -> Error {
        match self {
            Refusal::Expired => CertificateError::Expired.into(),
            Refusal::NotYetValid => CertificateError::NotValidYet.into(),
            _ => CertificateError::Other(OtherError(Arc::new(self))).into(),
        }
    }

    /// What an error of rustls means.
    pub fn of(error: &Error) -> Refusal {
        match error {
            Error::NoCertificatesPresented => Refusal::NoCertificate,
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => Refusal::Cipher,
            Error::PeerIncompatible(_) => Refusal::Version,
            Error::NoApplicationProtocol => Refusal::Protocol,
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Refusal::Unprepared,
            _ => Refusal::NotTls,
        }
    }

    /// What an error of a handshake's stream means.
    pub fn of_io(error: &io::Error) -> Refusal {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Refusal::of(error),
            None => Refusal::Gone,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NoCertificate => "it showed no certificate",
            Refusal::UnknownAuthority => "its certificate comes from an authority that is not trusted",
            Refusal::Expired => "its certificate has expired",
            Refusal::NotYetValid => "its certificate is not valid yet",
            Refusal::Revoked => "its certificate was revoked",
            Refusal::TrustDomain => "its certificate has no SPIFFE identity of a trusted domain",
            Refusal::Name => "its certificate has none of the names asked for",
            Refusal::Pin => "its certificate is not one of those pinned",
            Refusal::BadCertificate => "its certificate is broken",
            Refusal::Version => "no TLS version in common",
            Refusal::Cipher => "no cipher suite in common",
            Refusal::Protocol => "no application protocol in common",
            Refusal::UnknownName => "nobody answers for the name it asked for",
            Refusal::OurCertificate => "it refused our certificate",
            Refusal::Alert => "it gave up the handshake",
            Refusal::NotTls => "what it sent is not TLS",
            Refusal::IsTls => "what it sent is TLS, and plaintext is spoken here now",
            Refusal::Timeout => "the handshake took too long",
            Refusal::TooMany => "too many handshakes at once",
            Refusal::Gone => "it went away during the handshake",
            Refusal::Unprepared => "there is no usable certificate of our own",
        })
    }
}

impl std::error::Error for Refusal {}

fn of_certificate(error: &CertificateError) -> Refusal {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Refusal::NotYetValid,
        CertificateError::Revoked
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => Refusal::Revoked,
        CertificateError::UnknownIssuer => Refusal::UnknownAuthority,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Refusal::Name,
        CertificateError::Other(OtherError(inner)) => {
            inner.downcast_ref::<Refusal>().copied().unwrap_or(Refusal::BadCertificate)
        }
        // A certificate signed by another authority of the same name.
        CertificateError::BadSignature => Refusal::UnknownAuthority,
        _ => Refusal::BadCertificate,
    }
}

fn of_alert(alert: AlertDescription) -> Refusal {
    match alert {
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::AccessDenied
        | AlertDescription::UnknownCA => Refusal::OurCertificate,
        AlertDescription::UnrecognisedName => Refusal::UnknownName,
        AlertDescription::ProtocolVersion => Refusal::Version,
        AlertDescription::NoApplicationProtocol => Refusal::Protocol,
        _ => Refusal::Alert,
    }
}
