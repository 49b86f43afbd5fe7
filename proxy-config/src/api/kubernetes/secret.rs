//! Secret (core): certificates and keys. What else a Secret holds is not kept, and nothing of it is ever shown.

use crate::api::Meta;
use crate::decode::Cursor;
use crate::document::Value;
use crate::model::Pem;
use crate::units;
use std::collections::BTreeMap;

const E: &str = "IST0106";
/// `type` of a Secret with a certificate and its key.
const TLS: &str = "kubernetes.io/tls";
/// The values that are kept: their keys, and what their PEM begins with.
const KEPT: [(&str, &str); 8] = [
    ("tls.crt", CERTIFICATE),
    ("tls.key", KEY),
    ("ca.crt", CERTIFICATE),
    ("ca.crl", CRL),
    ("cert", CERTIFICATE),
    ("key", KEY),
    ("cacert", CERTIFICATE),
    ("crl", CRL),
];
const CERTIFICATE: &str = "CERTIFICATE";
const KEY: &str = "PRIVATE KEY";
const CRL: &str = "X509 CRL";

/// Core `v1` Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// Identity.
    pub meta: Meta,
    /// PEM texts by key: `tls.crt`, `tls.key`, `ca.crt`, `ca.crl`, `cert`, `key`, `cacert`, `crl`.
    pub values: BTreeMap<&'static str, Pem>,
}

impl Secret {
    /// The first of these keys that it has.
    pub fn value<'s>(&'s self, keys: &[&str]) -> Option<&'s Pem> {
        keys.iter().find_map(|key| self.values.get(*key))
    }
}

pub(crate) fn secret(root: &Cursor<'_>, meta: Meta) -> Secret {
    let mut values = BTreeMap::new();
    for (field, encoded) in [("data", true), ("stringData", false)] {
        for (key, value) in root.field(field).entries() {
            let Some(text) = text(&value, encoded) else { continue };
            let Some((name, begins)) = KEPT.iter().find(|(name, _)| *name == key.value) else { continue };
            match text {
                Ok(text) if holds(&text, begins) => {
                    let from = format!("Secret {}/{} {name}", meta.object.namespace, meta.object.name);
                    values.insert(*name, Pem::Text { from, text: text.into() });
                }
                Ok(_) => {
                    let help = format!("it begins with -----BEGIN {begins}-----");
                    value.error_with_help(E, format!("not PEM with a {}", begins.to_lowercase()), help);
                }
                Err(message) => value.error(E, message),
            }
        }
    }
    if root.field("type").text() == Some(TLS) {
        for key in ["tls.crt", "tls.key"] {
            let written =
                ["data", "stringData"].iter().any(|field| root.field(field).field(key).is_present());
            if !written {
                root.error(E, format!("data[{key}]: Required value in a Secret of type {TLS}"));
            }
        }
    }
    Secret { meta, values }
}

/// The text of a value, or that it has none; `None`: reported.
fn text(value: &Cursor<'_>, encoded: bool) -> Option<Result<String, String>> {
    let node = value.node()?;
    let Value::String(text) = &node.value else {
        if node.value != Value::Null {
            value.error(E, format!("must be a string, not {}", node.described()));
        }
        return None;
    };
    if !encoded {
        return Some(Ok(text.clone()));
    }
    match units::base64(text) {
        Ok(bytes) => Some(String::from_utf8(bytes).map_err(|_| "not PEM: not even text".to_owned())),
        Err(message) => {
            let help = "`data` is in base64; write plain text below `stringData`";
            value.error_with_help(E, message, help);
            None
        }
    }
}

fn holds(text: &str, begins: &str) -> bool {
    text.lines().any(|line| {
        let inner = line.trim().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        inner.is_some_and(|inner| inner.ends_with(begins))
    })
}
