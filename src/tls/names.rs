//! Names in certificates, and names that clients ask for.

use super::certificate::spiffe;
use crate::record::parts;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use webpki::EndEntityCert;

/// Whether a certificate has one of `names`: a URI, a SPIFFE identity without its scheme, a DNS name (which a
/// wildcard in the certificate may cover) or an address.
pub(super) fn has_one(certificate: &EndEntityCert<'_>, names: &[String]) -> bool {
    names.iter().any(|name| {
        let uri = |uri: &str| uri == name || uri.strip_prefix("spiffe://") == Some(name);
        certificate.valid_uri_names().any(uri) || is_for(certificate, name)
    })
}

/// Whether a certificate is for this DNS name or address.
fn is_for(certificate: &EndEntityCert<'_>, name: &str) -> bool {
    ServerName::try_from(name).is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

/// The SPIFFE identity of a certificate, if its trust domain is one of `domains`.
pub(super) fn member<'a>(certificate: &EndEntityCert<'a>, domains: &[String]) -> Option<&'a str> {
    let principal = spiffe(certificate.valid_uri_names())?;
    let (domain, ..) = parts(principal)?;
    domains.iter().any(|known| known == domain).then_some(principal)
}

/// Things by the names that clients ask for: exact, then the longest `*.suffix`, then `*`.
#[derive(Debug)]
pub(super) struct ByName<T> {
    exact: HashMap<String, T>,
    /// With their leading dot, longest first.
    suffixes: Vec<(String, T)>,
    any: Option<T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        ByName { exact: HashMap::new(), suffixes: Vec::new(), any: None }
    }
}

impl<T> ByName<T> {
    /// Puts `thing` up for a pattern; false: somebody has it already.
    pub(super) fn add(&mut self, pattern: &str, thing: T) -> bool {
        let pattern = pattern.to_ascii_lowercase();
        if pattern == "*" {
            let free = self.any.is_none();
            self.any.get_or_insert(thing);
            return free;
        }
        let Some(suffix) = pattern.strip_prefix('*') else {
            let free = !self.exact.contains_key(&pattern);
            self.exact.entry(pattern).or_insert(thing);
            return free;
        };
        if self.suffixes.iter().any(|(known, _)| known == suffix) {
            return false;
        }
        let at = self.suffixes.partition_point(|(known, _)| known.len() >= suffix.len());
        self.suffixes.insert(at, (suffix.to_owned(), thing));
        true
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty() && self.any.is_none()
    }

    /// What `name` gets; a client that asks for none gets what is there for `*`.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&T> {
        let Some(name) = name else { return self.any.as_ref() };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let covers = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
        let suffix = || self.suffixes.iter().find(|(suffix, _)| covers(suffix)).map(|(_, thing)| thing);
        self.exact.get(&name).or_else(suffix).or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], name: Option<&str>, wanted: Option<&str>) {
        let mut names = ByName::default();
        patterns.iter().for_each(|pattern| {
            names.add(pattern, (*pattern).to_owned());
        });
        assert_eq!(names.find(name).map(String::as_str), wanted, "{name:?} among {patterns:?}");
    }

    #[test]
    fn the_most_specific_name_wins_and_no_name_gets_the_star() {
        let all = ["*", "*.example.com", "*.a.example.com", "a.example.com"];
        check(&all, Some("a.example.com"), Some("a.example.com"));
        check(&all, Some("A.Example.Com."), Some("a.example.com"));
        check(&all, Some("b.a.example.com"), Some("*.a.example.com"));
        check(&all, Some("b.example.com"), Some("*.example.com"));
        check(&all, Some("example.com"), Some("*"));
        check(&all, None, Some("*"));
        check(&all[1..], None, None);
        check(&all[1..], Some("example.com"), None);
        check(&["*.example.com"], Some(".example.com"), None);
    }
}
