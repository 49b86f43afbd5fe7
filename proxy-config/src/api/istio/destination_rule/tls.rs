//! How a destination is spoken to by TLS: settings, and what Istio refuses of them.

use super::TlsSettings;
use crate::decode::Cursor;
use crate::model::ClientMode;

const E: &str = "IST0106";

pub(super) fn decode(tls: &Cursor<'_>) -> Option<TlsSettings> {
    if !tls.is_object() {
        return None;
    }
    let text = |name: &str| tls.field(name).string().filter(|text| !text.is_empty());
    let mode = match tls.field("mode").text() {
        Some("SIMPLE") => Some(ClientMode::Simple),
        Some("MUTUAL") => Some(ClientMode::Mutual),
        Some("ISTIO_MUTUAL") => Some(ClientMode::IstioMutual),
        _ => None,
    };
    check(tls, mode);
    Some(TlsSettings {
        at: tls.at(),
        path: tls.path().to_owned(),
        mode,
        files: text("clientCertificate").zip(text("privateKey")),
        ca_file: text("caCertificates"),
        crl_file: text("caCrl"),
        credential: tls.field("credentialName").text_at().filter(|name| !name.value.is_empty()),
        names: tls.field("subjectAltNames").strings().into_iter().map(|name| name.value).collect(),
        sni: text("sni"),
        insecure: tls.field("insecureSkipVerify").boolean().unwrap_or(false),
    })
}

fn check(tls: &Cursor<'_>, mode: Option<ClientMode>) {
    let has = |name: &str| tls.field(name).text().is_some_and(|text| !text.is_empty());
    let files = [
        ("clientCertificate", "client certificate"),
        ("privateKey", "private key"),
        ("caCertificates", "CA certificates"),
    ];
    let given = || files.iter().filter(|(name, _)| has(name));
    if mode == Some(ClientMode::IstioMutual) {
        for (name, what) in given() {
            tls.field(name).error(E, format!("{what} must not be set for ISTIO_MUTUAL tls"));
        }
        if has("credentialName") {
            tls.field("credentialName").error(E, "credentialName must not be set for ISTIO_MUTUAL tls");
        }
    } else if has("credentialName") {
        for (name, what) in given() {
            tls.field(name).error(E, format!("{what} must not be set beside credentialName"));
        }
    } else if mode == Some(ClientMode::Mutual) {
        for (name, what) in files.iter().take(2).filter(|(name, _)| !has(name)) {
            tls.error(E, format!("{what} required for mutual tls ({name})"));
        }
    }
    let insecure = tls.field("insecureSkipVerify");
    if insecure.boolean() == Some(true) {
        let names = tls.field("subjectAltNames").items().next().is_some();
        if has("caCertificates") || has("credentialName") || names {
            insecure.error(
                E,
                "insecureSkipVerify cannot be set with caCertificates, credentialName or subjectAltNames",
            );
        }
        insecure.warn_with_help(
            "SC024",
            "whoever answers is believed: the certificate of the destination is not looked at",
            "name its authorities in `caCertificates`",
        );
    }
}
