//! Rules of an AuthorizationPolicy: what Istio refuses is refused, the rest becomes the model's.

use crate::decode::Cursor;
use crate::model::{Blocks, PolicyCondition, PolicyOperation, PolicyRule, PolicySource, Values};
use crate::units;

const E: &str = "IST0106";
/// In one list, and characters in one of them.
const MAX_SERVICE_ACCOUNTS: usize = 16;
const MAX_SERVICE_ACCOUNT: usize = 320;

/// What is wrong with rule `i`, and what is hardly meant.
pub(super) fn check(rule: &Cursor<'_>, i: usize, custom: bool) {
    for (list, inner) in [("from", "source"), ("to", "operation")] {
        let list_at = rule.field(list);
        if list_at.is_present() && list_at.items().next().is_none() {
            list_at.error(E, format!("`{list}` must not be empty, found at rule {i}"));
        }
        for item in list_at.items() {
            not_empty(&item, list, inner, i);
        }
    }
    for item in rule.field("from").items() {
        source(&item.field("source"), i, custom);
    }
    for item in rule.field("to").items() {
        operation(&item.field("operation"));
    }
    let only_to = rule.field("to").is_present() && !rule.field("from").is_present();
    if only_to && i > 0 && !rule.field("when").is_present() {
        rule.warn_with_help(
            "SC020",
            "this rule has no `from`: it allows every source",
            "if it was meant to narrow the rule above it, remove the dash before `to`",
        );
    }
    for item in rule.field("when").items() {
        condition(&item, custom);
    }
}

fn not_empty(item: &Cursor<'_>, list: &str, inner: &str, i: usize) {
    let node = item.field(inner);
    if !node.is_present() || node.entries().next().is_none() {
        item.error(E, format!("`{list}.{inner}` must not be empty, found at rule {i}"));
    }
    for (name, _) in node.entries() {
        let values = node.field(name.value);
        if values.node().is_some_and(|n| n.items().is_empty()) {
            values.error(E, format!("`{}` must not be empty, found at rule {i}", name.value));
        }
        for value in values.items().filter(|v| v.text() == Some("")) {
            value.error(E, format!("`{}` contains an empty value, found at rule {i}", name.value));
        }
    }
}

fn source(source: &Cursor<'_>, i: usize, custom: bool) {
    let has = |names: &[&str]| names.iter().any(|name| source.field(name).is_present());
    if has(&["serviceAccounts", "notServiceAccounts"])
        && has(&["principals", "notPrincipals", "namespaces", "notNamespaces"])
    {
        source
            .error(E, format!("cannot set serviceAccounts with namespaces or principals, found at rule {i}"));
    }
    for name in ["serviceAccounts", "notServiceAccounts"] {
        let list = source.field(name);
        if list.items().count() > MAX_SERVICE_ACCOUNTS {
            list.error(E, format!("at most {MAX_SERVICE_ACCOUNTS} values, found at rule {i}"));
        }
        for value in list.items() {
            let text = value.text().unwrap_or_default();
            if text.contains('*') || text.matches('/').count() > 1 || text.len() > MAX_SERVICE_ACCOUNT {
                value.error(E, format!("{text:?} is not `account` or `namespace/account`"));
            }
        }
    }
    for name in ["ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks"] {
        source.field(name).items().for_each(|value| block(&value));
    }
    if custom {
        let callers = ["principals", "notPrincipals", "requestPrincipals", "notRequestPrincipals"];
        for name in callers.iter().chain(&["namespaces", "notNamespaces"]) {
            let field = source.field(name);
            if field.is_present() {
                field.error(E, format!("{name} is not supported with CUSTOM action"));
            }
        }
    }
}

fn block(value: &Cursor<'_>) {
    if let Some(text) = value.text()
        && let Err(message) = units::block(text)
    {
        value.error(E, message);
    }
}

fn operation(operation: &Cursor<'_>) {
    for name in ["ports", "notPorts"] {
        operation.field(name).items().for_each(|value| port(&value));
    }
    for name in ["paths", "notPaths"] {
        for value in operation.field(name).items() {
            if let Some(message) = value.text().and_then(path_problem) {
                value.error(E, message);
            }
        }
    }
}

fn port(value: &Cursor<'_>) {
    let text = value.text().unwrap_or_default();
    if text.parse::<u16>().is_err() {
        value.error(E, format!("{text:?} is not a port"));
    }
}

/// `{*}` stands for one segment, `{**}` for any number; other braces stand for nothing.
fn path_problem(path: &str) -> Option<String> {
    let is_template = path.contains("{*}") || path.contains("{**}");
    let mut rest_taken = false;
    for segment in path.trim_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if rest_taken => {
                return Some(format!("invalid path {path:?}: {{**}} is not the last operator"));
            }
            "{*}" => {}
            "{**}" => rest_taken = true,
            _ if segment.contains(['{', '}']) => {
                return Some(format!(
                    "invalid path {path:?}: braces stand only in {{*}} (one segment) and {{**}} (any number)"
                ));
            }
            _ if is_template && !segment.bytes().all(is_pchar) => {
                return Some(format!("invalid path {path:?}: segment {segment:?} beside a template"));
            }
            _ => {}
        }
    }
    None
}

/// RFC 3986; `*` is none beside a template, where it would be taken for a wildcard.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;=:@".contains(&byte)
}

/// Attributes that take no argument.
const ATTRIBUTES: [&str; 12] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];
/// Attributes with an argument in brackets.
const MAPS: [&str; 2] = ["request.headers", "request.auth.claims"];

fn condition(condition: &Cursor<'_>, custom: bool) {
    let key = condition.field("key");
    let Some(text) = key.text() else { return };
    let argument = |map: &str| {
        let rest = text.strip_prefix(map)?.strip_prefix('[')?.strip_suffix(']')?;
        (!rest.is_empty()).then_some(())
    };
    if MAPS.contains(&text) {
        key.error(E, format!("bad key ({text}): should have format a[b]"));
    } else if text.starts_with("experimental.envoy.filters.") {
        let message = "attributes of Envoy's filters are not known here: the condition never matches";
        key.error_with_help(E, message, "use another attribute");
    } else if !ATTRIBUTES.contains(&text) && MAPS.iter().find_map(|map| argument(map)).is_none() {
        key.error(E, format!("unknown attribute: {text}"));
    }
    let of_caller = ["source.namespace", "source.principal"].contains(&text);
    if custom && (of_caller || text.starts_with("request.auth.")) {
        key.error(E, format!("{text} is not supported with CUSTOM action"));
    }
    let has = |name: &str| condition.field(name).items().next().is_some();
    if !has("values") && !has("notValues") {
        condition.error(E, "at least one of `values` or `notValues` must be set");
    }
    for value in ["values", "notValues"].iter().flat_map(|name| condition.field(name).items()) {
        match text {
            "source.ip" | "remote.ip" | "destination.ip" => block(&value),
            "destination.port" => port(&value),
            _ => {}
        }
    }
}

/// The rule in the model's words; where something is misshapen it is left out, as its object is not used.
pub(super) fn rule(rule: &Cursor<'_>, namespace: &str) -> PolicyRule {
    PolicyRule {
        from: rule.field("from").items().map(|from| read_source(&from.field("source"), namespace)).collect(),
        to: rule.field("to").items().map(|to| read_operation(&to.field("operation"))).collect(),
        when: rule.field("when").items().filter_map(|when| read_condition(&when, namespace)).collect(),
    }
}

fn values(of: &Cursor<'_>, name: &str, not: &str) -> Values {
    let read = |name: &str| of.field(name).strings().into_iter().map(|value| value.value).collect();
    Values { any: read(name), none: read(not) }
}

fn blocks(of: &Cursor<'_>, name: &str, not: &str) -> Blocks {
    let read = |name: &str| of.field(name).items().filter_map(|v| units::block(v.text()?).ok()).collect();
    Blocks { any: read(name), none: read(not) }
}

/// A service account without a namespace is one of the policy's.
fn complete(accounts: &mut Values, namespace: &str) {
    for account in accounts.any.iter_mut().chain(&mut accounts.none) {
        if !account.contains('/') {
            *account = format!("{namespace}/{account}");
        }
    }
}

fn read_source(source: &Cursor<'_>, namespace: &str) -> PolicySource {
    let mut accounts = values(source, "serviceAccounts", "notServiceAccounts");
    complete(&mut accounts, namespace);
    PolicySource {
        principals: values(source, "principals", "notPrincipals"),
        request_principals: values(source, "requestPrincipals", "notRequestPrincipals"),
        namespaces: values(source, "namespaces", "notNamespaces"),
        service_accounts: accounts,
        trust_domains: values(source, "trustDomains", "notTrustDomains"),
        ip_blocks: blocks(source, "ipBlocks", "notIpBlocks"),
        remote_ip_blocks: blocks(source, "remoteIpBlocks", "notRemoteIpBlocks"),
    }
}

fn read_operation(operation: &Cursor<'_>) -> PolicyOperation {
    PolicyOperation {
        hosts: values(operation, "hosts", "notHosts"),
        ports: values(operation, "ports", "notPorts"),
        methods: values(operation, "methods", "notMethods"),
        paths: values(operation, "paths", "notPaths"),
    }
}

fn read_condition(condition: &Cursor<'_>, namespace: &str) -> Option<PolicyCondition> {
    let key = condition.field("key").string()?;
    let mut values = values(condition, "values", "notValues");
    if key == "source.serviceAccount" {
        complete(&mut values, namespace);
    }
    Some(PolicyCondition { key, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_paths_stand_for_whole_segments_and_the_rest_comes_last() {
        let check = |path: &str, good: bool| assert_eq!(path_problem(path).is_none(), good, "{path}");
        check("/api/*", true);
        check("/a{*}", false);
        check("/a/{*}/b", true);
        check("/a/{*}/b/{**}", true);
        check("/a/{**}/b", true);
        check("/a/{**}/{*}", false);
        check("/a/{**}/b/{**}", false);
        check("/a/{name}", false);
        check("/a/{*}/b*", false);
        check("/a b", true);
        check("/a b/{*}", false);
    }
}
