//! MeshConfig's tree to its struct, from each of the places where it is written.

use super::MeshConfig;
use super::shape::MESH_CONFIG;
use crate::api::host::{self, Wildcard};
use crate::api::{Meta, shape};
use crate::decode::{Cursor, Findings};
use crate::document::{self, Node, Value};
use crate::model::{AccessLogEncoding, OutboundMode, PathNormalization, TlsVersion};
use crate::report::{Level, Place};

/// From a tree whose root is the MeshConfig itself.
pub(crate) fn decode(node: &Node, meta: Meta, findings: &Findings) -> MeshConfig {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("must be an object, not {}", node.described());
        findings.add(Level::Error, "IST0106", "", node.at, message);
    }
    shape::check(node, MESH_CONFIG, true, findings);
    let root = Cursor::new(node, "", findings);
    let encoding = match root.field("accessLogEncoding").text() {
        Some("JSON") => Some(AccessLogEncoding::Json),
        Some("TEXT") => Some(AccessLogEncoding::Text),
        _ => None,
    };
    let format = root.field("accessLogFormat");
    if encoding == Some(AccessLogEncoding::Json)
        && let Some(text) = format.text().filter(|t| !t.is_empty())
        && !serde_json::from_str::<serde_json::Value>(text).is_ok_and(|v| v.is_object())
    {
        format.error("IST0106", "with accessLogEncoding JSON the format must be a JSON object");
    }
    let trust_domain = root.field("trustDomain");
    let policy = root.field("outboundTrafficPolicy");
    // A policy without mode has the enum's first value.
    let outbound = policy.is_present().then(|| match policy.field("mode").text() {
        Some("ALLOW_ANY") => OutboundMode::AllowAny,
        _ => OutboundMode::RegistryOnly,
    });
    MeshConfig {
        meta,
        access_log_file: root.field("accessLogFile").text_at(),
        access_log_encoding: encoding,
        access_log_format: format.text_at().filter(|f| !f.value.is_empty()),
        concurrency: root.field("defaultConfig").field("concurrency").number_at(),
        proxy: super::proxy::decode(&root.field("defaultConfig")),
        trust_domain: host::host(&trust_domain, Wildcard::No),
        outbound: outbound.map(|mode| crate::report::At::new(mode, policy.field("mode").at())),
        root_namespace: root.field("rootNamespace").text_at().filter(|name| !name.value.is_empty()),
        trust_domain_aliases: host::hosts(&root.field("trustDomainAliases"), Wildcard::Suffix),
        path_normalization: path_normalization(&root.field("pathNormalization").field("normalization")),
        min_tls: match root.field("meshMTLS").field("minProtocolVersion").text() {
            Some("TLSV1_3") => Some(TlsVersion::V13),
            Some(_) => Some(TlsVersion::V12),
            None => None,
        },
        auto_mtls: root.field("enableAutoMtls").boolean(),
        ext_authz: super::providers::decode(&root.field("extensionProviders")),
    }
}

fn path_normalization(cursor: &Cursor<'_>) -> Option<PathNormalization> {
    Some(match cursor.text()? {
        "NONE" => PathNormalization::None,
        "MERGE_SLASHES" => PathNormalization::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => PathNormalization::DecodeAndMergeSlashes,
        _ => PathNormalization::Base,
    })
}

/// From `data.mesh` of the ConfigMap `istio`: YAML within YAML. `text` is the whole file.
pub(crate) fn from_config_map(
    root: &Node,
    text: &str,
    meta: Meta,
    findings: &Findings,
) -> Option<MeshConfig> {
    let node = root.get("data")?.get("mesh")?;
    let Value::String(inner) = &node.value else {
        let message = format!("must be a string, not {}", node.described());
        let help = Some("write `mesh: |-` and indent the MeshConfig below it".to_owned());
        findings.add_with_help(Level::Error, "IST0106", "data.mesh", node.at, message, help);
        return None;
    };
    let shift = Shift::new(node.at, text);
    let read = document::read(&findings.file, inner);
    for problem in read.problems.iter().chain(read.documents.iter().flat_map(|d| &d.faults)) {
        let (at, help) = (shift.place(problem.at), problem.help.clone());
        findings.add_with_help(problem.level, problem.code, "data.mesh", at, problem.message.clone(), help);
    }
    let mut document = read.documents.into_iter().next()?;
    shift.node(&mut document.root);
    Some(decode(&document.root, meta, findings))
}

/// From places in an inner text to places in the file it stands in.
struct Shift {
    start: Place,
    /// Columns that a block scalar is indented by; `None` where the text is not a block, so that all of it
    /// is said to stand where it starts.
    indent: Option<u32>,
}

impl Shift {
    fn new(start: Place, text: &str) -> Shift {
        let line = |number: u32| text.lines().nth(number.saturating_sub(1) as usize).unwrap_or_default();
        let opens = |number: u32| line(number).trim_end().trim_end_matches(['-', '+']).ends_with(['|', '>']);
        let first = if opens(start.line) { start.line + 1 } else { start.line };
        let is_block = first > start.line || (start.line > 1 && opens(start.line - 1));
        let spaces = line(first).chars().take_while(|c| *c == ' ').count();
        let indent = is_block.then(|| u32::try_from(spaces).unwrap_or(0));
        Shift { start: Place { line: first, column: start.column }, indent }
    }

    fn place(&self, inner: Place) -> Place {
        match self.indent {
            Some(indent) => Place {
                line: self.start.line.saturating_add(inner.line.saturating_sub(1)),
                column: inner.column.saturating_add(indent),
            },
            None => self.start,
        }
    }

    fn node(&self, node: &mut Node) {
        node.at = self.place(node.at);
        match &mut node.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| self.node(item)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    key.at = self.place(key.at);
                    self.node(value);
                }
            }
            _ => {}
        }
    }
}
