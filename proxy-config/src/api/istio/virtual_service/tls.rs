//! A VirtualService's rules for connections that are not opened: by the name that their client asks for.

use super::decode::destinations;
use super::{TlsMatch, TlsRule};
use crate::api::host::{self, Wildcard};
use crate::decode::Cursor;
use crate::report::At;

const E: &str = "IST0106";

/// One rule. `hosts` are those of the object.
pub(super) fn decode(rule: &Cursor<'_>, hosts: &[At<String>]) -> Option<TlsRule> {
    let (matches, route) = (rule.field("match"), rule.field("route"));
    if route.items().next().is_none() {
        rule.error(E, "TLS route is required");
        return None;
    }
    let matches: Vec<TlsMatch> = matches.items().map(|block| self::block(&block, hosts)).collect();
    if matches.is_empty() && rule.field("match").is_present() {
        rule.error(E, "TLS match must have at least one SNI host");
    }
    Some(TlsRule { matches, route: destinations(&route)? })
}

fn block(block: &Cursor<'_>, hosts: &[At<String>]) -> TlsMatch {
    let list = block.field("sniHosts");
    if list.items().next().is_none() {
        block.error(E, "TLS match must have at least one SNI host");
    }
    for item in list.items() {
        let Some(name) = item.text().map(str::to_ascii_lowercase) else { continue };
        let covered = |host: &At<String>| covers(&host.value, &name);
        if !hosts.iter().any(covered) {
            let all: Vec<&str> = hosts.iter().map(|host| host.value.as_str()).collect();
            let message = format!(
                "SNI host {name:?} is not a compatible subset of any of the virtual service hosts: [{}]",
                all.join(", ")
            );
            item.error(E, message);
        }
    }
    for name in ["sourceLabels", "sourceNamespace"] {
        let field = block.field(name);
        if field.is_present() {
            field.note("SC007", "conditions on the calling workload count on the mesh alone");
        }
    }
    TlsMatch {
        names: host::hosts(&list, Wildcard::Any),
        port: block.field("port").number(),
        gateways: block.field("gateways").strings(),
        subnets: block.field("destinationSubnets").is_present(),
    }
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == name,
        Some(suffix) => name.trim_start_matches('*').ends_with(suffix),
    }
}
