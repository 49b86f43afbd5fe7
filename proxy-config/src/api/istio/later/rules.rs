//! Rules between the fields of kinds that do not act yet: what Istio refuses is refused already.

use crate::api::istio::security::selector;
use crate::decode::Cursor;

const E: &str = "IST0106";

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
