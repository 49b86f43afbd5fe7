//! Whom an object concerns, and whom one with errors may have concerned.

use super::{Selection, Suspect, TargetRef};
use crate::api::Meta;
use crate::decode::Cursor;
use crate::model::ObjectRef;
use crate::report::{Place, Problem};
use std::path::Path;
use std::sync::Arc;

const E: &str = "IST0106";

/// The group of the kinds that ask something of callers.
pub(crate) const GROUP: &str = "security.istio.io";
const KINDS: [&str; 3] = ["PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy"];

/// `selector` and `targetRefs` exclude each other; labels are literal.
pub(crate) fn check(spec: &Cursor<'_>) {
    let selector = spec.field("selector");
    let targets = ["targetRef", "targetRefs"].iter().any(|name| spec.field(name).is_present());
    if selector.is_present() && targets {
        spec.error(E, "only one of targetRefs or selector can be set");
    }
    for (key, value) in selector.field("matchLabels").entries() {
        if key.value.is_empty() {
            value.error(E, "key must not be empty");
        }
        if key.value.contains('*') || value.text().is_some_and(|t| t.contains('*')) {
            value.error(E, "wildcard not allowed in label match");
        }
        if value.text().is_some_and(|t| t.len() > 63) {
            value.error(E, "label value is longer than 63 characters");
        }
    }
}

/// What is written, checked.
pub(super) fn decode(spec: &Cursor<'_>, meta: &Meta) -> Selection {
    check(spec);
    let selector = spec.field("selector");
    if selector.is_present() && selector.field("matchLabels").entries().next().is_none() {
        selector.warn("IST0133", "a selector without labels: every workload of the namespace is meant");
    }
    let labels = selector.field("matchLabels").string_map();
    let one = Some(spec.field("targetRef")).filter(Cursor::is_present);
    let targets = one.into_iter().chain(spec.field("targetRefs").items());
    Selection {
        labels: labels.into_iter().map(|(key, value)| (key.value, value.value)).collect(),
        at: selector.at(),
        targets: targets.filter_map(|item| target(&item, meta)).collect(),
    }
}

fn target(item: &Cursor<'_>, meta: &Meta) -> Option<TargetRef> {
    let (kind, group) = (item.field("kind").string()?, item.field("group").text().unwrap_or_default());
    let fits = match kind.as_str() {
        "Gateway" => matches!(group, "gateway.networking.k8s.io" | "networking.istio.io" | ""),
        "GatewayClass" => matches!(group, "gateway.networking.k8s.io" | ""),
        "Service" => matches!(group, "" | "core" | "serving.knative.dev"),
        "ServiceEntry" => matches!(group, "networking.istio.io" | ""),
        _ => false,
    };
    if !fits {
        let known = "write a Gateway, a Service (group \"\") or a ServiceEntry (group networking.istio.io)";
        item.error_with_help(E, format!("targetRefs: kind {kind:?} of group {group:?} is not one"), known);
    }
    let namespace = item.field("namespace");
    if namespace.text().is_some_and(|n| !n.is_empty() && n != meta.object.namespace) {
        namespace.error(E, "cross namespace referencing is not supported");
    }
    if kind == "GatewayClass" {
        item.warn("SC007", "a GatewayClass as target does not act: the object concerns nobody");
    }
    Some(TargetRef { kind, name: item.field("name").text_at()? })
}

/// Where errors say nothing about whom the object concerns.
const ELSEWHERE: [&str; 8] = [
    "spec.rules",
    "spec.jwtRules",
    "spec.mtls",
    "spec.portLevelMtls",
    "spec.action",
    "spec.provider",
    "metadata.annotations",
    "apiVersion",
];

/// An object of ours that has errors. `selection` is what could be read of it.
pub(crate) fn suspect(meta: &Meta, selection: Option<Selection>, problems: &[Problem]) -> Option<Suspect> {
    if meta.object.group != GROUP || !KINDS.contains(&meta.object.kind.as_str()) {
        return None;
    }
    let elsewhere =
        |problem: &Problem| problem.path == "spec" || ELSEWHERE.iter().any(|p| problem.path.starts_with(p));
    let mut errors = problems.iter().filter(|problem| problem.level == crate::report::Level::Error);
    let readable = errors.all(elsewhere);
    Some(Suspect { meta: meta.clone(), selection: selection.filter(|_| readable) })
}

/// What a file with a syntax error may have held, by the lines that say a kind. Documents are told apart by
/// their dashes alone, as nothing else of them can be trusted.
pub(crate) fn lost(file: &Arc<Path>, text: &str, default_namespace: &str) -> Vec<Suspect> {
    let mut found = Vec::new();
    let mut line = 1;
    for document in text.split("\n---") {
        let value = |key: &str| document.lines().find_map(|line| value_in(line, key)).map(str::to_owned);
        let at = Place { line, column: 1 };
        line += u32::try_from(document.matches('\n').count()).unwrap_or(0) + 1;
        let Some(kind) = value("kind").filter(|kind| KINDS.contains(&kind.as_str())) else { continue };
        let namespace = value("namespace").filter(|name| !name.is_empty());
        let object = ObjectRef {
            group: GROUP.to_owned(),
            kind,
            namespace: namespace.unwrap_or_else(|| default_namespace.to_owned()),
            name: value("name").unwrap_or_else(|| "(unreadable)".to_owned()),
        };
        let meta = Meta { object, file: file.clone(), at, ..Meta::default() };
        found.push(Suspect { meta, selection: None });
    }
    found
}

/// The value of `key` in a line, in a block or between braces.
fn value_in<'t>(line: &'t str, key: &str) -> Option<&'t str> {
    let plain = line.split(" #").next().unwrap_or_default();
    let at = plain.match_indices(key).map(|(at, _)| at).find(|&at| {
        let before = plain[..at].trim_end();
        let starts = before.is_empty() || before.ends_with(['{', ',', '-']);
        starts && plain[at + key.len()..].starts_with(':')
    });
    let rest = &plain[at? + key.len() + 1..];
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    Some(rest[..end].trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_broken_file_the_kinds_that_ask_something_of_callers_are_found() {
        let text = "kind: Service\nmetadata:\n  name: a\n---\nkind: AuthorizationPolicy # x\nmetadata:\n  \
                    name: \"b\"\n  namespace: shop\nspec: [\n---\n  kind: 'PeerAuthentication'\n---\nkind: \
                    RequestAuthentication\nmetadata: {namespace: shop, name: c}\n  x";
        let found = lost(&Arc::from(Path::new("x.yaml")), text, "home");
        let names: Vec<String> = found.iter().map(|s| format!("{} {}", s.meta.object, s.meta.at)).collect();
        let expected = [
            "AuthorizationPolicy shop/b 4:1",
            "PeerAuthentication home/(unreadable) 10:1",
            "RequestAuthentication shop/c 12:1",
        ];
        assert_eq!(names, expected);
    }
}
