//! What ProxyConfig says about those whom a request has passed before: in MeshConfig's `defaultConfig`, and for single
//! workloads in the annotation `proxy.istio.io/config` of their Pods.

use crate::decode::{Cursor, Findings};
use crate::document;
use crate::model::ClientCert;
use std::path::Path;

/// The annotation.
const ANNOTATION: &str = "proxy.istio.io/config";

/// Absent values are not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// `proxyHeaders.forwardedClientCert`: of sidecars.
    pub client_cert: Option<ClientCert>,
    /// `gatewayTopology.forwardClientCertDetails`.
    pub gateway_client_cert: Option<ClientCert>,
    /// `gatewayTopology.numTrustedProxies`.
    pub trusted_proxies: Option<u32>,
}

/// From a ProxyConfig.
pub(super) fn decode(root: &Cursor<'_>) -> ProxySettings {
    let topology = root.field("gatewayTopology");
    ProxySettings {
        client_cert: mode(&root.field("proxyHeaders").field("forwardedClientCert")),
        gateway_client_cert: mode(&topology.field("forwardClientCertDetails")),
        trusted_proxies: topology.field("numTrustedProxies").number(),
    }
}

fn mode(cursor: &Cursor<'_>) -> Option<ClientCert> {
    Some(match cursor.text()? {
        "SANITIZE" => ClientCert::Sanitize,
        "FORWARD_ONLY" => ClientCert::ForwardOnly,
        "APPEND_FORWARD" => ClientCert::AppendForward,
        "SANITIZE_SET" => ClientCert::SanitizeSet,
        "ALWAYS_FORWARD_ONLY" => ClientCert::AlwaysForwardOnly,
        _ => return None,
    })
}

/// From the annotations of a Pod, or of a Pod template: only what acts is looked at.
pub(crate) fn annotated(annotations: &Cursor<'_>) -> ProxySettings {
    let annotation = annotations.field(ANNOTATION);
    let Some(text) = annotation.text() else { return ProxySettings::default() };
    let read = document::read(Path::new(""), text);
    let Some(document) = read.documents.first().filter(|document| !read.broken && document.faults.is_empty())
    else {
        annotation.warn("IST0133", "it is not YAML, and not used");
        return ProxySettings::default();
    };
    let findings = Findings::new(None, Path::new("").into());
    let root = Cursor::new(&document.root, "", &findings);
    let found = decode(&root);
    let written = [("proxyHeaders", "forwardedClientCert"), ("gatewayTopology", "forwardClientCertDetails")];
    for (field, (parent, name)) in [found.client_cert, found.gateway_client_cert].iter().zip(written) {
        let value = root.field(parent).field(name);
        if field.is_none() && value.is_present() && value.text() != Some("UNDEFINED") {
            let word = value.text().unwrap_or_default();
            annotation.warn("IST0133", format!("{parent}.{name}: {word:?} is no such mode, and not used"));
        }
    }
    found
}
