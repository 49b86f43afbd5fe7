//! Versions and cipher suites: OpenSSL's names, as configurations write them, to what is spoken.

use super::provider;
use proxy_config::model::TlsVersion;
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedProtocolVersion};
use std::sync::Arc;

/// The suites of TLS 1.2 that can be had, by OpenSSL's names. Those of TLS 1.3 are not a matter of
/// configuration, as with Envoy.
const SUITES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

static V12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
static V13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// The versions from the oldest to the newest.
pub(super) fn versions(
    (oldest, newest): (TlsVersion, TlsVersion),
) -> &'static [&'static SupportedProtocolVersion] {
    match (oldest, newest) {
        (TlsVersion::V12, TlsVersion::V12) => &V12,
        (TlsVersion::V12, TlsVersion::V13) => &BOTH,
        (TlsVersion::V13, _) => &V13,
    }
}

/// The provider with the suites named, and the names that cannot be had. Where none of them can be, TLS 1.2
/// is left without a suite: weaker than what was asked for is never spoken.
pub(super) fn with_suites(names: &[String]) -> (Arc<CryptoProvider>, Vec<&str>) {
    let all = provider();
    if names.is_empty() {
        return (all, Vec::new());
    }
    let find = |name: &String| SUITES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let unknown = names.iter().filter(|name| find(name).is_none()).map(String::as_str).collect();
    let mut chosen = (*all).clone();
    let named: Vec<CipherSuite> = names.iter().filter_map(find).map(|(_, suite)| *suite).collect();
    let mut suites: Vec<_> = named
        .iter()
        .filter_map(|suite| all.cipher_suites.iter().find(|known| known.suite() == *suite).copied())
        .collect();
    suites.splice(0..0, all.cipher_suites.iter().copied().filter(|suite| suite.tls13().is_some()));
    chosen.cipher_suites = suites;
    (Arc::new(chosen), unknown)
}

/// What a version is called in access logs.
pub(super) fn version_name(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    }
}

/// What a suite is called in access logs: OpenSSL's name.
pub(super) fn suite_name(suite: Option<rustls::SupportedCipherSuite>) -> &'static str {
    let Some(suite) = suite.map(|suite| suite.suite()) else { return "unknown" };
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => SUITES.iter().find(|(_, known)| *known == suite).map_or("unknown", |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], unknown: &[&str], suites_of_12: usize) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (provider, missing) = with_suites(&names);
        assert_eq!(missing, unknown);
        let old = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none());
        assert_eq!(old.count(), suites_of_12, "{names:?}");
        assert!(provider.cipher_suites.iter().any(|suite| suite.tls13().is_some()));
    }

    #[test]
    fn named_suites_are_spoken_and_unknown_ones_are_told() {
        check(&[], &[], 6);
        check(&["ECDHE-RSA-AES128-GCM-SHA256"], &[], 1);
        check(&["ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA"], &["AES128-SHA"], 1);
        check(&["AES128-SHA"], &["AES128-SHA"], 0);
    }
}
