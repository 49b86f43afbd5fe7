//! Policies as the documentation words them, evaluated slowly: every value becomes a regular expression over
//! Envoy's own attributes, and nothing is compiled ahead. Shares no code with what it is a judge of.

use proxy_config::model::{
    AuthorizationPolicy, Blocks, Guard, PolicyAction, PolicyCondition, PolicyOperation, PolicyRule,
    PolicySource, Values,
};
use proxy_config::regex;
use serde_json::Value;
use std::net::IpAddr;

/// A request, owned.
#[derive(Clone, Debug)]
pub struct Asked {
    pub principal: Option<String>,
    pub source: IpAddr,
    pub client: IpAddr,
    pub method: String,
    pub path: String,
    pub host: String,
    pub headers: Vec<(String, String)>,
    pub port: u16,
    pub sni: String,
    pub claims: Option<Value>,
}

/// Our trust domain first, then those that count as it.
pub type Domains = [&'static str];

/// Whether the request passes.
pub fn passes(guard: &Guard, domains: &Domains, asked: &Asked) -> bool {
    if !guard.quarantined.is_empty() {
        return false;
    }
    let of = |action: PolicyAction| {
        guard.policies.iter().filter(move |policy| policy.action == action && !policy.dry_run)
    };
    if of(PolicyAction::Deny).any(|policy| matches(policy, domains, asked)) {
        return false;
    }
    of(PolicyAction::Allow).count() == 0
        || of(PolicyAction::Allow).any(|policy| matches(policy, domains, asked))
}

/// How many AUDIT rules match.
pub fn audited(guard: &Guard, domains: &Domains, asked: &Asked) -> usize {
    let audit = guard.policies.iter().filter(|policy| policy.action == PolicyAction::Audit);
    audit
        .flat_map(|policy| policy.rules.iter().map(move |r| (policy, r)))
        .filter(|(p, r)| rule(p, r, domains, asked))
        .count()
}

fn matches(policy: &AuthorizationPolicy, domains: &Domains, asked: &Asked) -> bool {
    policy.rules.iter().any(|one| rule(policy, one, domains, asked))
}

fn rule(policy: &AuthorizationPolicy, rule: &PolicyRule, domains: &Domains, asked: &Asked) -> bool {
    let from = rule.from.is_empty() || rule.from.iter().any(|one| source(policy, one, domains, asked));
    let to = rule.to.is_empty() || rule.to.iter().any(|one| operation(one, asked));
    from && to && rule.when.iter().all(|one| condition(policy, one, domains, asked))
}

/// (no positive values, or one that is) and no negative value that is.
fn both(values: &Values, is: impl Fn(&str) -> bool) -> bool {
    let any = values.any.is_empty() || values.any.iter().any(|value| is(value));
    any && !values.none.iter().any(|value| is(value))
}

fn in_blocks(blocks: &Blocks, ip: IpAddr) -> bool {
    let is = |(network, prefix): &(IpAddr, u8)| in_block(*network, *prefix, ip);
    (blocks.any.is_empty() || blocks.any.iter().any(is)) && !blocks.none.iter().any(is)
}

fn in_block(network: IpAddr, prefix: u8, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().iter().map(|byte| format!("{byte:08b}")).collect::<String>(),
        IpAddr::V6(ip) => ip.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
    };
    let (network, ip) = (bits(network), bits(ip));
    network.len() == ip.len() && network[..prefix as usize] == ip[..prefix as usize]
}

fn whole(pattern: &str, text: &str) -> bool {
    regex::whole(pattern).unwrap().is_match(text)
}

fn quoted(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("\\x{{{:x}}}", c as u32) })
        .collect()
}

/// `*` is `.+`; one star at the start, or else at the end, is `.*`; all else is itself.
fn value(pattern: &str) -> String {
    if pattern == "*" {
        ".+".to_owned()
    } else if let Some(tail) = pattern.strip_prefix('*') {
        format!(".*{}", quoted(tail))
    } else if let Some(head) = pattern.strip_suffix('*') {
        format!("{}.*", quoted(head))
    } else {
        quoted(pattern)
    }
}

fn principal(pattern: &str, domains: &Domains, asked: &Asked) -> bool {
    let Some(own) = &asked.principal else { return false };
    widened(pattern, domains).iter().any(|pattern| whole(&value(pattern), own))
}

/// A principal of our domain, or of `cluster.local`, stands for the same in each of our domains.
fn widened(pattern: &str, domains: &Domains) -> Vec<String> {
    let parts: Vec<&str> = pattern.split('/').collect();
    let ours = |domain: &str| match domain.strip_prefix('*') {
        Some(tail) => domains.iter().any(|own| own.ends_with(tail)),
        None => domains.contains(&domain) || domain == "cluster.local",
    };
    if parts.len() != 5 || parts[0] == "*" || !ours(parts[0]) {
        return vec![pattern.to_owned()];
    }
    let each = domains.iter().map(|own| match parts[0].strip_prefix('*') {
        Some(tail) if own.ends_with(tail) => pattern.to_owned(),
        _ => format!("{own}/{}", parts[1..].join("/")),
    });
    each.collect()
}

fn namespace(pattern: &str, asked: &Asked) -> bool {
    let Some(own) = &asked.principal else { return false };
    let inner: Vec<String> = pattern.split('*').map(quoted).collect();
    whole(&format!(".*/ns/{}/.*", inner.join(".*")), &format!("spiffe://{own}"))
}

fn account(pattern: &str, policy: &AuthorizationPolicy, asked: &Asked) -> bool {
    let Some(own) = &asked.principal else { return false };
    let (ns, sa) = pattern.split_once('/').unwrap_or((&policy.origin.namespace, pattern));
    whole(&format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", quoted(ns), quoted(sa)), &format!("spiffe://{own}"))
}

fn domain(pattern: &str, asked: &Asked) -> bool {
    asked.principal.as_ref().is_some_and(|own| whole(&value(pattern), own.split('/').next().unwrap()))
}

fn requester(pattern: &str, asked: &Asked) -> bool {
    let Some(claims) = &asked.claims else { return false };
    let (Some(iss), Some(sub)) = (claims["iss"].as_str(), claims["sub"].as_str()) else { return false };
    let (head, tail) = match pattern.rsplit_once('/') {
        Some((head, tail)) => (head, Some(tail)),
        None => (pattern, None),
    };
    let (want_iss, want_sub) = match (pattern, tail) {
        ("*", _) => (".+".to_owned(), ".+".to_owned()),
        (p, Some(tail)) if p.starts_with('*') => (value(head), quoted(tail)),
        (p, None) if p.starts_with('*') => (".+".to_owned(), value(p)),
        (p, Some(tail)) if p.ends_with('*') => (quoted(head), value(tail)),
        (p, None) if p.ends_with('*') => (value(p), ".+".to_owned()),
        (_, tail) => (quoted(head), quoted(tail.unwrap_or(""))),
    };
    whole(&want_iss, iss) && whole(&want_sub, sub)
}

fn path(pattern: &str, path: &str) -> bool {
    if !pattern.contains("{*}") && !pattern.contains("{**}") {
        return whole(&value(pattern), path);
    }
    let segment = |segment: &str| match segment {
        "{*}" => "[^/]+".to_owned(),
        "{**}" => ".*".to_owned(),
        other => quoted(other),
    };
    whole(&pattern.split('/').map(segment).collect::<Vec<_>>().join("/"), path)
}

fn source(policy: &AuthorizationPolicy, one: &PolicySource, domains: &Domains, asked: &Asked) -> bool {
    both(&one.principals, |v| principal(v, domains, asked))
        && both(&one.request_principals, |v| requester(v, asked))
        && both(&one.namespaces, |v| namespace(v, asked))
        && both(&one.service_accounts, |v| account(v, policy, asked))
        && both(&one.trust_domains, |v| domain(v, asked))
        && in_blocks(&one.ip_blocks, asked.source)
        && in_blocks(&one.remote_ip_blocks, asked.client)
}

fn operation(one: &PolicyOperation, asked: &Asked) -> bool {
    both(&one.hosts, |v| whole(&value(&v.to_lowercase()), &asked.host.to_lowercase()))
        && both(&one.ports, |v| v == asked.port.to_string())
        && both(&one.methods, |v| whole(&value(v), &asked.method))
        && both(&one.paths, |v| path(v, &asked.path))
}

fn condition(policy: &AuthorizationPolicy, one: &PolicyCondition, domains: &Domains, asked: &Asked) -> bool {
    let address = |v: &str, ip: IpAddr| {
        let (network, prefix) = v.split_once('/').unwrap_or((v, "32"));
        in_block(network.parse().unwrap(), prefix.parse().unwrap(), ip)
    };
    if let Some(name) = one.key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
        return header(policy, one, name, asked);
    }
    both(&one.values, |v| match one.key.as_str() {
        "source.ip" => address(v, asked.source),
        "remote.ip" => address(v, asked.client),
        "source.namespace" => namespace(v, asked),
        "source.principal" => principal(v, domains, asked),
        "source.serviceAccount" => account(v, policy, asked),
        "source.trustDomain" => domain(v, asked),
        "request.auth.principal" => requester(v, asked),
        "request.auth.audiences" => claim(&["aud"], v, asked),
        "request.auth.presenter" => claim(&["azp"], v, asked),
        "destination.port" => v == asked.port.to_string(),
        "connection.sni" => !asked.sni.is_empty() && whole(&value(v), &asked.sni),
        key => {
            let inner = key.strip_prefix("request.auth.claims[").unwrap().strip_suffix(']').unwrap();
            claim(&inner.split("][").collect::<Vec<_>>(), v, asked)
        }
    })
}

/// What refuses looks at each of several values and at all of them joined; what lets in at all of them joined, and for
/// what must not be there at each as well.
fn header(policy: &AuthorizationPolicy, one: &PolicyCondition, name: &str, asked: &Asked) -> bool {
    let each: Vec<&str> = asked.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
    if each.is_empty() {
        return one.values.any.is_empty();
    }
    let is = |text: &str| both(&one.values, |v| whole(&value(v), text));
    if policy.action == PolicyAction::Allow {
        let excluded = |text: &&str| one.values.none.iter().any(|v| whole(&value(v), text));
        return is(&each.join(",")) && !each.iter().any(excluded);
    }
    is(&each.join(",")) || each.iter().any(|text| is(text))
}

fn claim(path: &[&str], pattern: &str, asked: &Asked) -> bool {
    let Some(claims) = &asked.claims else { return false };
    let mut value_of = claims;
    for name in path {
        value_of = &value_of[name];
    }
    let words: Vec<&str> = match value_of {
        Value::String(text) if path == ["scope"] => text.split_whitespace().collect(),
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    words.iter().any(|word| whole(&value(pattern), word))
}
