//! TLS of a Gateway's server: its settings, and what Istio refuses of them.

use super::ServerProtocol;
use crate::decode::Cursor;
use crate::model::TlsVersion;
use crate::report::{At, Place};
use crate::units;

const E: &str = "IST0106";

/// `servers[].tls` of a server that is encrypted.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerTls {
    /// Where it begins.
    pub at: Place,
    /// `mode`.
    pub mode: TlsMode,
    /// `credentialName`, or the first of `credentialNames`.
    pub credential: Option<At<String>>,
    /// `caCertCredentialName`.
    pub ca_credential: Option<At<String>>,
    /// `serverCertificate` and `privateKey`, or the first of `tlsCertificates`.
    pub files: Option<(String, String)>,
    /// `caCertificates`.
    pub ca_file: Option<String>,
    /// `caCrl`.
    pub crl_file: Option<String>,
    /// `subjectAltNames`.
    pub names: Vec<String>,
    /// `verifyCertificateSpki`, in base64.
    pub spki: Vec<String>,
    /// `verifyCertificateHash`, in lower-case hexadecimal without colons.
    pub hashes: Vec<String>,
    /// `minProtocolVersion` and `maxProtocolVersion`.
    pub versions: (TlsVersion, TlsVersion),
    /// `cipherSuites` that are known.
    pub ciphers: Vec<String>,
}

/// `tls.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// PASSTHROUGH.
    Passthrough,
    /// SIMPLE.
    Simple,
    /// MUTUAL.
    Mutual,
    /// OPTIONAL_MUTUAL.
    OptionalMutual,
    /// ISTIO_MUTUAL.
    IstioMutual,
    /// AUTO_PASSTHROUGH; does not act yet.
    AutoPassthrough,
}

/// The settings of an encrypted server.
pub(super) fn decode(server: &Cursor<'_>, protocol: ServerProtocol) -> Option<ServerTls> {
    let tls = server.field("tls");
    let encrypted = matches!(protocol, ServerProtocol::Https | ServerProtocol::Tls);
    if encrypted && !tls.is_present() {
        server.error(E, "server must have TLS settings for HTTPS/TLS protocols");
    }
    if !tls.is_present() {
        return None;
    }
    if !encrypted {
        plain(&tls, protocol);
        return None;
    }
    if tls.field("httpsRedirect").boolean() == Some(true) {
        tls.field("httpsRedirect").error(E, "only HTTP servers can redirect to HTTPS");
    }
    let mode = mode(&tls);
    check_sources(&tls, mode);
    let text = |name: &str| tls.field(name).string().filter(|text| !text.is_empty());
    let strings = |name: &str| tls.field(name).strings().into_iter().map(|text| text.value).collect();
    let own =
        |of: &Cursor<'_>| Some((of.field("serverCertificate").string()?, of.field("privateKey").string()?));
    let listed = || tls.field("tlsCertificates").items().next().and_then(|first| own(&first));
    let listed_ca = || {
        tls.field("tlsCertificates").items().next().and_then(|first| first.field("caCertificates").string())
    };
    let named = tls.field("credentialName").text_at().filter(|name| !name.value.is_empty());
    Some(ServerTls {
        at: tls.at(),
        mode,
        credential: named.or_else(|| tls.field("credentialNames").strings().into_iter().next()),
        ca_credential: tls.field("caCertCredentialName").text_at(),
        files: own(&tls).or_else(listed),
        ca_file: text("caCertificates").or_else(listed_ca),
        crl_file: text("caCrl"),
        names: strings("subjectAltNames"),
        spki: tls.field("verifyCertificateSpki").items().filter_map(|item| spki(&item)).collect(),
        hashes: tls.field("verifyCertificateHash").items().filter_map(|item| hash(&item)).collect(),
        versions: versions(&tls),
        ciphers: tls.field("cipherSuites").items().filter_map(|item| cipher(&item)).collect(),
    })
}

/// Of a plaintext server only the redirect can be set.
fn plain(tls: &Cursor<'_>, protocol: ServerProtocol) {
    let settings = tls.node().map_or(0, |node| node.entries().len());
    if settings != usize::from(tls.field("httpsRedirect").is_present()) {
        tls.error(E, "server cannot have TLS settings for plain text HTTP ports");
    }
    if protocol == ServerProtocol::Tcp && tls.field("httpsRedirect").boolean() == Some(true) {
        tls.field("httpsRedirect").error(E, "only HTTP servers can redirect to HTTPS");
    }
}

fn mode(tls: &Cursor<'_>) -> TlsMode {
    let mode = tls.field("mode");
    match mode.text().unwrap_or("PASSTHROUGH") {
        "SIMPLE" => TlsMode::Simple,
        "MUTUAL" => TlsMode::Mutual,
        "OPTIONAL_MUTUAL" => TlsMode::OptionalMutual,
        "ISTIO_MUTUAL" => TlsMode::IstioMutual,
        "AUTO_PASSTHROUGH" => {
            mode.warn("SC007", "AUTO_PASSTHROUGH does not act yet: this server is not bound");
            TlsMode::AutoPassthrough
        }
        _ => TlsMode::Passthrough,
    }
}

fn check_sources(tls: &Cursor<'_>, mode: TlsMode) {
    let has = |name: &str| tls.field(name).is_present();
    let sources = ["credentialName", "credentialNames", "tlsCertificates"];
    let written: Vec<&str> = sources.iter().copied().filter(|name| has(name)).collect();
    if written.len() > 1 {
        tls.error(E, "only one of credentialName, credentialNames or tlsCertificates can be set");
    }
    for list in ["credentialNames", "tlsCertificates"] {
        match tls.field(list).items().count() {
            0 | 1 => {}
            2 => tls.field(list).warn("SC007", "a second certificate does not act yet: the first is shown"),
            _ => tls.field(list).error(E, format!("{list} can have at most two")),
        }
    }
    if written.is_empty() && matches!(mode, TlsMode::Simple | TlsMode::Mutual | TlsMode::OptionalMutual) {
        let word = tls.field("mode").text().unwrap_or_default();
        for (name, what) in [("serverCertificate", "a server certificate"), ("privateKey", "a private key")] {
            if !has(name) {
                tls.error(E, format!("{word} TLS requires {what}"));
            }
        }
        if mode != TlsMode::Simple && !has("caCertificates") && !has("caCertCredentialName") {
            tls.error(E, format!("{word} TLS requires a client CA bundle"));
        }
    }
    let certificates = ["serverCertificate", "privateKey", "caCertificates", "caCertCredentialName"];
    if mode == TlsMode::IstioMutual {
        for name in certificates.iter().chain(&sources).filter(|name| has(name)) {
            tls.field(name).error(E, format!("ISTIO_MUTUAL TLS cannot have associated {name}"));
        }
    }
    if tls.field("insecureSkipVerify").boolean() == Some(true) {
        let message = "insecureSkipVerify does not act on a server: certificates of clients are verified";
        tls.field("insecureSkipVerify").warn("SC007", message);
    }
}

fn spki(item: &Cursor<'_>) -> Option<String> {
    let text = item.string()?;
    if !units::base64(&text).is_ok_and(|bytes| bytes.len() == 32) {
        item.error(E, "not a SHA-256 in base64");
        return None;
    }
    Some(text)
}

fn hash(item: &Cursor<'_>) -> Option<String> {
    let text = item.string()?.replace(':', "").to_ascii_lowercase();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        item.error(E, "not a SHA-256 in hexadecimal");
        return None;
    }
    Some(text)
}

fn versions(tls: &Cursor<'_>) -> (TlsVersion, TlsVersion) {
    let version = |name: &str, auto: TlsVersion| {
        let field = tls.field(name);
        match field.text() {
            Some("TLSV1_3") => TlsVersion::V13,
            Some("TLSV1_2") => TlsVersion::V12,
            Some(old @ ("TLSV1_0" | "TLSV1_1")) => {
                field.warn("SC007", format!("{old} is not spoken: TLS 1.2 is the oldest"));
                TlsVersion::V12
            }
            _ => auto,
        }
    };
    let (oldest, newest) =
        (version("minProtocolVersion", TlsVersion::V12), version("maxProtocolVersion", TlsVersion::V13));
    if oldest > newest {
        tls.field("minProtocolVersion").error(E, "minProtocolVersion is above maxProtocolVersion");
    }
    (oldest, newest)
}

/// Those that can be spoken, in OpenSSL's names; TLS 1.3 has its own, which are always on.
const SPOKEN: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
/// Those that Envoy speaks besides: without forward secrecy, or by CBC.
const WEAK: [&str; 8] = [
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
];

fn cipher(item: &Cursor<'_>) -> Option<String> {
    let text = item.string()?;
    if SPOKEN.contains(&text.as_str()) {
        return Some(text);
    }
    let help = format!("spoken are {}", SPOKEN.join(", "));
    if WEAK.contains(&text.as_str()) {
        item.warn_with_help("SC007", format!("cipher suite {text} is not spoken: it is too weak"), help);
    } else {
        item.warn_with_help("IST0133", format!("ignoring invalid cipher suite: {text:?}"), help);
    }
    None
}
