//! Names of hosts as configuration writes them: exact, `*.suffix` or `*`.

use crate::decode::Cursor;
use crate::report::At;
use std::net::IpAddr;

/// Which wildcards a place admits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wildcard {
    /// None.
    No,
    /// `*.suffix`.
    Suffix,
    /// `*.suffix` and `*`.
    Any,
}

/// The host at this place, lower case, or nothing and a finding.
pub(crate) fn host(cursor: &Cursor<'_>, wildcard: Wildcard) -> Option<At<String>> {
    let host = cursor.text_at()?.map(|text| text.to_ascii_lowercase());
    match problem(&host.value, wildcard) {
        None => Some(host),
        Some(message) => {
            cursor.error("IST0106", message);
            None
        }
    }
}

/// All hosts of a list.
pub(crate) fn hosts(list: &Cursor<'_>, wildcard: Wildcard) -> Vec<At<String>> {
    list.items().filter_map(|item| host(&item, wildcard)).collect()
}

/// What is wrong with a host in lower case.
pub(crate) fn problem(host: &str, wildcard: Wildcard) -> Option<String> {
    if host.is_empty() {
        return Some("host must not be empty".to_owned());
    }
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    if host == "*" {
        return (wildcard != Wildcard::Any).then(|| "wildcard host * is not allowed here".to_owned());
    }
    let rest = match host.strip_prefix('*') {
        Some(_) if wildcard == Wildcard::No => {
            return Some(format!("wildcard host {host:?} is not allowed here"));
        }
        Some(rest) => rest.strip_prefix(['.', '-']).unwrap_or(rest),
        None => host,
    };
    if rest.contains('*') {
        return Some(format!("invalid host {host:?}: `*` may only be its first label"));
    }
    if rest.contains("://") || rest.contains('/') {
        return Some(format!("invalid host {host:?}: a host name, not a URL"));
    }
    if rest.contains(':') {
        return Some(format!("invalid host {host:?}: a host name without port"));
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = rest.strip_suffix('.').unwrap_or(rest);
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Some(format!("invalid host {host:?}: labels of letters, digits and `-`, joined by dots"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_addresses_or_wildcards_in_front() {
        let check = |host: &str, wildcard, good: bool| {
            assert_eq!(problem(host, wildcard).is_none(), good, "{host}: {:?}", problem(host, wildcard));
        };
        check("reviews", Wildcard::No, true);
        check("reviews.default.svc.cluster.local", Wildcard::No, true);
        check("10.0.0.1", Wildcard::No, true);
        check("*.example.com", Wildcard::Suffix, true);
        check("*.example.com", Wildcard::No, false);
        check("*", Wildcard::Any, true);
        check("*", Wildcard::Suffix, false);
        check("a.*.com", Wildcard::Any, false);
        check("example.com:80", Wildcard::Any, false);
        check("http://example.com", Wildcard::Any, false);
        check("", Wildcard::Any, false);
        check("a..b", Wildcard::Any, false);
    }
}
