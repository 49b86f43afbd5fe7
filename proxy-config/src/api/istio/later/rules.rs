//! Rules between the fields of kinds that do not act yet: what Istio refuses is refused already.

use crate::decode::Cursor;

const E: &str = "IST0106";

pub(crate) fn peer_authentication(root: &Cursor<'_>) {
    let spec = root.field("spec");
    selector(&spec);
    let labels = spec.field("selector").field("matchLabels");
    let ports = spec.field("portLevelMtls");
    if ports.is_present() && labels.entries().next().is_none() {
        ports.error(E, "portLevelMtls requires selector");
    }
    if ports.is_present() && ports.entries().next().is_none() {
        ports.error(E, "port level mTLS, if written, must not be empty");
    }
    for (port, value) in ports.entries() {
        if port.value.parse::<u16>().is_ok_and(|p| p > 0) {
            continue;
        }
        value.error(E, format!("port must be between 1-65535, not {:?}", port.value));
    }
}

pub(crate) fn request_authentication(root: &Cursor<'_>) {
    let spec = root.field("spec");
    selector(&spec);
    for rule in spec.field("jwtRules").items() {
        let text = |name: &str| rule.field(name).text().filter(|t| !t.is_empty());
        let uri = text("jwksUri").or(text("jwks_uri"));
        if text("issuer").is_none() && uri.is_none() {
            rule.error(E, "issuer or jwksUri must be non-empty string");
        }
        if uri.is_some() && text("jwks").is_some() {
            rule.error(E, "only one of jwks or jwksUri can be set");
        }
        if uri.is_some_and(|u| !u.starts_with("http://") && !u.starts_with("https://")) {
            rule.field("jwksUri").error(E, "url must have scheme http:// or https://");
        }
        if let Some(jwks) = text("jwks")
            && serde_json::from_str::<serde_json::Value>(jwks).is_err()
        {
            rule.field("jwks").error(E, "jwks parse error: not JSON");
        }
        for list in ["audiences", "fromParams", "fromCookies", "spaceDelimitedClaims"] {
            for item in rule.field(list).items().filter(|i| i.text() == Some("")) {
                item.error(E, "must be a non-empty string");
            }
        }
    }
}

pub(crate) fn authorization_policy(root: &Cursor<'_>) {
    let spec = root.field("spec");
    selector(&spec);
    let action = spec.field("action").text().unwrap_or("ALLOW");
    let rules = spec.field("rules");
    if matches!(action, "DENY" | "CUSTOM") && rules.items().next().is_none() {
        let message = format!("{action} action without `rules` is meaningless as it will never be triggered");
        spec.error_with_help(E, message, "write `rules: [{}]` to match every request");
    }
    if action != "CUSTOM" && spec.field("provider").is_present() {
        spec.field("provider").error(E, "`provider` must not be with non CUSTOM action");
    }
    if action == "CUSTOM" && spec.field("provider").field("name").text().unwrap_or_default().is_empty() {
        spec.error(E, "`provider.name` must not be empty");
    }
    for (i, rule) in rules.items().enumerate() {
        authorization_rule(&rule, i);
    }
}

fn authorization_rule(rule: &Cursor<'_>, i: usize) {
    for (list, inner) in [("from", "source"), ("to", "operation")] {
        let list_at = rule.field(list);
        if list_at.is_present() && list_at.items().next().is_none() {
            list_at.error(E, format!("`{list}` must not be empty, found at rule {i}"));
        }
        for item in list_at.items() {
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
    }
    for item in rule.field("from").items() {
        let source = item.field("source");
        let has = |names: &[&str]| names.iter().any(|name| source.field(name).is_present());
        if has(&["serviceAccounts", "notServiceAccounts"])
            && has(&["principals", "notPrincipals", "namespaces", "notNamespaces"])
        {
            let message =
                format!("cannot set serviceAccounts with namespaces or principals, found at rule {i}");
            source.error(E, message);
        }
    }
    let only_to = rule.field("to").is_present() && !rule.field("from").is_present();
    if only_to && i > 0 && !rule.field("when").is_present() {
        rule.warn_with_help(
            "SC020",
            "this rule has no `from`: it allows every source",
            "if it was meant to narrow the rule above it, remove the dash before `to`",
        );
    }
    for condition in rule.field("when").items() {
        when(&condition);
    }
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

fn when(condition: &Cursor<'_>) {
    let key = condition.field("key");
    let Some(text) = key.text() else { return };
    if MAPS.contains(&text) {
        key.error(E, format!("bad key ({text}): should have format a[b]"));
    } else if !ATTRIBUTES.contains(&text)
        && !MAPS
            .iter()
            .any(|m| text.strip_prefix(m).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']')))
        && !text.starts_with("experimental.envoy.filters.")
    {
        key.error(E, format!("unknown attribute: {text}"));
    }
    let has = |name: &str| condition.field(name).items().next().is_some();
    if !has("values") && !has("notValues") {
        condition.error(E, "at least one of `values` or `notValues` must be set");
    }
}

pub(crate) fn telemetry(root: &Cursor<'_>) {
    let spec = root.field("spec");
    selector(&spec);
    for metrics in spec.field("metrics").items() {
        for rule in metrics.field("overrides").items() {
            let matches = rule.field("match");
            if matches.field("metric").is_present() && matches.field("customMetric").is_present() {
                matches.error(E, "only one of metric or customMetric can be set");
            }
            for (_, tag) in rule.field("tagOverrides").entries() {
                let has_value = tag.field("value").text().is_some_and(|v| !v.is_empty());
                let remove = tag.field("operation").text() == Some("REMOVE");
                if remove && has_value {
                    tag.error(E, "value must not be set when operation is REMOVE");
                }
                if !remove && !has_value {
                    tag.error(E, "value must be set when operation is UPSERT");
                }
            }
        }
    }
    for tracing in spec.field("tracing").items() {
        for (_, tag) in tracing.field("customTags").entries() {
            if tag.entries().count() != 1 {
                tag.error(E, "exactly one of literal, formatter, environment or header must be set");
            }
        }
    }
}

pub(crate) fn sidecar(root: &Cursor<'_>) {
    let spec = root.field("spec");
    if spec.entries().next().is_none() {
        root.error(E, "sidecar: empty configuration provided");
    }
    let egress = spec.field("egress");
    let count = egress.items().count();
    for (i, listener) in egress.items().enumerate() {
        if !listener.field("port").is_present() && i + 1 < count {
            listener.error(
                E,
                "sidecar: the egress listener with empty port should be the last listener in the list",
            );
        }
        for host in listener.field("hosts").items() {
            if host.text().is_some_and(|t| !t.contains('/')) {
                host.error_with_help(
                    E,
                    "must be `namespace/host`",
                    "write `./…` for this namespace, `*/…` for all",
                );
            }
        }
    }
}

pub(crate) fn workload_entry(root: &Cursor<'_>) {
    let spec = root.field("spec");
    let address = spec.field("address").text().unwrap_or_default();
    if spec.is_present() && address.is_empty() && spec.field("network").text().is_none() {
        spec.error(E, "Address is required");
    }
    if address.starts_with("unix://") && spec.field("ports").is_present() {
        spec.error(E, "UDS may not include ports");
    }
}

/// `selector` and `targetRefs` exclude each other; labels are literal.
fn selector(spec: &Cursor<'_>) {
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
