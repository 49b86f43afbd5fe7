//! What is known about one request, as its workload sees it. Borrowed from the exchange; nothing is copied.

use super::jwt::Claims;
use http::HeaderMap;
use std::net::{IpAddr, SocketAddr};

/// A peer's identity: that of its certificate, without `spiffe://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The whole: `cluster.local/ns/default/sa/front`.
    pub principal: &'a str,
    /// Its first part.
    pub domain: &'a str,
    /// Of Istio's form alone.
    pub namespace: Option<&'a str>,
    /// Of Istio's form alone.
    pub account: Option<&'a str>,
}

impl<'a> Identity<'a> {
    /// Takes a principal apart; the empty one is none.
    pub fn parse(principal: &'a str) -> Option<Identity<'a>> {
        if principal.is_empty() {
            return None;
        }
        let mut parts = principal.split('/');
        let domain = parts.next().unwrap_or_default();
        let form = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
        let (namespace, account) = match form {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None)
                if !namespace.is_empty() && !account.is_empty() =>
            {
                (Some(namespace), Some(account))
            }
            _ => (None, None),
        };
        Some(Identity { principal, domain, namespace, account })
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who the peer proved to be.
    pub peer: Option<Identity<'a>>,
    /// The peer's address.
    pub source: IpAddr,
    /// The client's, as trusted proxies tell it.
    pub client: IpAddr,
    /// As sent.
    pub method: &'a str,
    /// Normalised, as it is forwarded, without the query.
    pub path: &'a str,
    /// With it.
    pub target: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// With the port, if one was sent.
    pub host: &'a str,
    /// All fields.
    pub headers: &'a HeaderMap,
    /// Where the workload listens.
    pub destination: SocketAddr,
    /// The server name of the connection; empty: none.
    pub sni: &'a str,
    /// Of the token that was verified.
    pub claims: Option<&'a Claims>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_istios_form_has_namespace_and_account() {
        let rows = [
            ("td/ns/a/sa/b", Some((Some("a"), Some("b")))),
            ("td/ns/a/sa/b/c", Some((None, None))),
            ("td/ns//sa/b", Some((None, None))),
            ("td/sa/b/ns/a", Some((None, None))),
            ("td", Some((None, None))),
            ("", None),
        ];
        for (principal, wanted) in rows {
            let found = Identity::parse(principal).map(|peer| (peer.namespace, peer.account));
            assert_eq!(found, wanted, "{principal}");
        }
    }
}
