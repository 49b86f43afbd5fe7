//! What a TLS handshake told about a client's connection: plain facts, made once for a connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// A client connection that is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// `TLSv1.3`
    pub version: &'static str,
    /// `TLS_AES_128_GCM_SHA256`
    pub cipher: &'static str,
    /// The name the client asked for.
    pub sni: Option<Box<str>>,
    /// The URI of the certificate shown to it.
    pub local_uri: Option<Arc<str>>,
    /// The client's certificate, checked.
    pub peer: Option<Certificate>,
}

/// A certificate that was checked against the authorities in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SPIFFE identity without `spiffe://`: `cluster.local/ns/default/sa/hello`.
    pub principal: Option<Box<str>>,
    /// URI names.
    pub uris: Vec<Box<str>>,
    /// DNS names.
    pub dns: Vec<Box<str>>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Subject, as RFC 2253 writes it; empty: it has none.
    pub subject: Box<str>,
    /// The issuer's subject.
    pub issuer: Box<str>,
    /// Serial number in hexadecimal.
    pub serial: Box<str>,
    /// SHA-256 of the certificate in hexadecimal.
    pub sha256: Box<str>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl Secured {
    /// The client's SPIFFE identity without `spiffe://`.
    #[inline]
    pub fn principal(&self) -> Option<&str> {
        self.peer.as_ref()?.principal.as_deref()
    }
}

impl Certificate {
    /// The namespace in a principal of the form `domain/ns/NAMESPACE/sa/ACCOUNT`.
    pub fn namespace(&self) -> Option<&str> {
        parts(self.principal.as_deref()?).map(|(_, namespace, _)| namespace)
    }
}

/// Trust domain, namespace and service account of a principal.
pub fn parts(principal: &str) -> Option<(&str, &str, &str)> {
    let mut words = principal.split('/');
    let (domain, ns, namespace, sa, account) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let whole = words.next().is_none() && ns == "ns" && sa == "sa";
    (whole && !domain.is_empty() && !namespace.is_empty() && !account.is_empty())
        .then_some((domain, namespace, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_has_three_parts_or_none() {
        for (principal, wanted) in [
            ("td/ns/a/sa/b", Some(("td", "a", "b"))),
            ("td/ns/a/sa/", None),
            ("td/ns/a/sa/b/c", None),
            ("td/a/b", None),
            ("/ns/a/sa/b", None),
            ("td/xx/a/sa/b", None),
        ] {
            assert_eq!(parts(principal), wanted, "{principal}");
        }
    }
}
