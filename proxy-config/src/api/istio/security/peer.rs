//! A PeerAuthentication's tree to its struct, and the rules between its fields.

use super::{PeerAuthentication, selection};
use crate::api::Meta;
use crate::decode::Cursor;
use crate::model::Mtls;

const E: &str = "IST0106";

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> PeerAuthentication {
    let spec = root.field("spec");
    let selection = selection::decode(&spec, &meta);
    let ports = spec.field("portLevelMtls");
    if ports.is_present() && selection.labels.is_empty() {
        ports.error(E, "portLevelMtls requires selector");
    }
    if ports.is_present() && ports.entries().next().is_none() {
        ports.error(E, "port level mTLS, if written, must not be empty");
    }
    let mut by_port = std::collections::BTreeMap::new();
    for (port, value) in ports.entries() {
        match port.value.parse::<u16>() {
            Ok(number) if number > 0 => {
                by_port.insert(number, mode(&value));
            }
            _ => value.error(E, format!("port must be between 1-65535, not {:?}", port.value)),
        }
    }
    PeerAuthentication { meta, selection, mode: mode(&spec.field("mtls")), ports: by_port }
}

fn mode(cursor: &Cursor<'_>) -> Option<Mtls> {
    match cursor.field("mode").text() {
        Some("DISABLE") => Some(Mtls::Disable),
        Some("PERMISSIVE") => Some(Mtls::Permissive),
        Some("STRICT") => Some(Mtls::Strict),
        _ => None,
    }
}
