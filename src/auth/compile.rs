//! From what a workload's policies say to what is evaluated.
//!
//! Total, and it fails closed: a policy that cannot be compiled makes its workload refuse everything, unless it
//! could not have refused anything itself.

use super::guard::{Custom, Guard, Id};
use super::jwt::{Jwt, KeyRing};
use super::rule::{Condition, Field, Operation, Rule, Source};
use super::text::{Account, Block, Glob, OneOf, Path, Requester, Text};
use http::HeaderName;
use proxy_config::model::{self, PolicyAction};
use std::sync::Arc;

/// Whose identities are ours.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The trust domain.
    pub domain: String,
    /// Others that count as it.
    pub aliases: Vec<String>,
}

/// Compiles all that is asked of a workload's callers. What cannot be compiled is added to `problems`.
pub fn compile(wanted: &model::Guard, trust: &Trust, keys: &KeyRing, problems: &mut Vec<String>) -> Guard {
    let mut broken: Vec<String> = wanted.quarantined.iter().map(ToString::to_string).collect();
    let mut sorted = Sorted::default();
    for policy in &wanted.policies {
        let compiler = Compiler { policy, trust };
        match policy.rules.iter().enumerate().map(|(nth, rule)| compiler.rule(nth, rule)).collect() {
            Ok(rules) => sorted.add(policy, rules),
            Err(why) => {
                let harmless = policy.dry_run || policy.action == PolicyAction::Audit;
                let effect = if harmless { "it is left out" } else { "its workload refuses every request" };
                problems.push(format!("{}: {why}; {effect}", policy.origin));
                if !harmless {
                    broken.push(policy.origin.to_string());
                }
            }
        }
    }
    let (jwt, unusable) = Jwt::compile(&wanted.jwt, keys, problems);
    broken.extend(unusable);
    Guard {
        name: wanted.name.as_str().into(),
        jwt,
        broken: (!broken.is_empty()).then(|| format!("not usable: {}", broken.join(", ")).into()),
        custom: sorted.custom,
        audit: sorted.audit.into(),
        deny: sorted.deny.into(),
        allow: sorted.allow.map(Into::into),
        dry_deny: sorted.dry_deny.into(),
        dry_allow: sorted.dry_allow.map(Into::into),
        nobody: Id::nobody(),
    }
}

/// Rules by what a match means.
#[derive(Default)]
struct Sorted {
    custom: Vec<Custom>,
    audit: Vec<Rule>,
    deny: Vec<Rule>,
    allow: Option<Vec<Rule>>,
    dry_deny: Vec<Rule>,
    dry_allow: Option<Vec<Rule>>,
}

impl Sorted {
    fn add(&mut self, policy: &model::AuthorizationPolicy, rules: Vec<Rule>) {
        match (&policy.action, policy.dry_run) {
            (PolicyAction::Allow, false) => self.allow.get_or_insert_default().extend(rules),
            (PolicyAction::Allow, true) => self.dry_allow.get_or_insert_default().extend(rules),
            (PolicyAction::Deny, false) => self.deny.extend(rules),
            (PolicyAction::Deny, true) => self.dry_deny.extend(rules),
            (PolicyAction::Audit, _) => self.audit.extend(rules),
            // Nobody is asked for trial.
            (PolicyAction::Custom(_), true) => {}
            (PolicyAction::Custom(provider), false) => {
                match self.custom.iter_mut().find(|custom| *custom.provider == **provider) {
                    Some(custom) => custom.rules.extend(rules),
                    None => self.custom.push(Custom { provider: provider.as_str().into(), rules }),
                }
            }
        }
    }
}

struct Compiler<'a> {
    policy: &'a model::AuthorizationPolicy,
    trust: &'a Trust,
}

impl Compiler<'_> {
    fn rule(&self, nth: usize, wanted: &model::PolicyRule) -> Result<Rule, String> {
        let origin = &self.policy.origin;
        let policy: Arc<str> = format!("ns[{}]-policy[{}]-rule[{nth}]", origin.namespace, origin.name).into();
        let details = format!("rbac_access_denied_matched_policy[{policy}]").into();
        Ok(Rule {
            id: Id { policy, details },
            from: wanted.from.iter().map(|source| self.source(source)).collect::<Result<_, _>>()?,
            to: wanted.to.iter().map(operation).collect::<Result<_, _>>()?,
            when: wanted.when.iter().map(|condition| self.condition(condition)).collect::<Result<_, _>>()?,
        })
    }

    fn source(&self, wanted: &model::PolicySource) -> Result<Source, String> {
        Ok(Source {
            principals: self.principals(&wanted.principals),
            requesters: each(&wanted.request_principals, |text| Ok(Requester::compile(text)))?,
            namespaces: each(&wanted.namespaces, |text| Ok(Glob::compile(text)))?,
            accounts: each(&wanted.service_accounts, |text| self.account(text))?,
            domains: texts(&wanted.trust_domains),
            addresses: blocks(&wanted.ip_blocks)?,
            clients: blocks(&wanted.remote_ip_blocks)?,
        })
    }

    fn account(&self, text: &str) -> Result<Account, String> {
        match text.contains('/') {
            true => Account::compile(text),
            false => Account::compile(&format!("{}/{text}", self.policy.origin.namespace)),
        }
    }

    /// Principals of our own trust domain count in all of its aliases.
    fn principals(&self, wanted: &model::Values) -> OneOf<Text> {
        let widen = |values: &[String]| {
            let all = values.iter().flat_map(|value| aliases(value, self.trust));
            all.map(|value| Text::compile(&value)).collect()
        };
        OneOf { any: widen(&wanted.any), none: widen(&wanted.none) }
    }

    fn condition(&self, wanted: &model::PolicyCondition) -> Result<Condition, String> {
        let values = &wanted.values;
        let key = wanted.key.as_str();
        if let Some(rest) = key.strip_prefix("request.headers") {
            let refuses = self.policy.action != PolicyAction::Allow;
            return Ok(Condition::Header(field(single(key, rest)?)?, texts(values), refuses));
        }
        if let Some(rest) = key.strip_prefix("request.auth.claims") {
            return Ok(Condition::Claim(brackets(key, rest)?, texts(values)));
        }
        let claim = |name: &str| Condition::Claim([name.into()].into(), texts(values));
        Ok(match key {
            "source.ip" => Condition::SourceIp(each(values, block)?),
            "remote.ip" => Condition::RemoteIp(each(values, block)?),
            "source.namespace" => Condition::Namespace(each(values, |text| Ok(Glob::compile(text)))?),
            "source.principal" => Condition::Principal(self.principals(values)),
            "source.serviceAccount" => Condition::Account(each(values, |text| self.account(text))?),
            "source.trustDomain" => Condition::Domain(texts(values)),
            "request.auth.principal" => {
                Condition::Requester(each(values, |text| Ok(Requester::compile(text)))?)
            }
            "request.auth.audiences" => claim("aud"),
            "request.auth.presenter" => claim("azp"),
            "destination.ip" => Condition::DestinationIp(each(values, block)?),
            "destination.port" => Condition::DestinationPort(each(values, port)?),
            "connection.sni" => Condition::Sni(texts(values)),
            _ if key.starts_with("experimental.") => {
                return Err(format!("`{key}` asks for what only Envoy's own filters know"));
            }
            _ => return Err(format!("unknown attribute: {key}")),
        })
    }
}

fn operation(wanted: &model::PolicyOperation) -> Result<Operation, String> {
    Ok(Operation {
        hosts: texts(&wanted.hosts),
        ports: each(&wanted.ports, port)?,
        methods: texts(&wanted.methods),
        paths: each(&wanted.paths, Path::compile)?,
    })
}

fn each<T>(wanted: &model::Values, make: impl Fn(&str) -> Result<T, String>) -> Result<OneOf<T>, String> {
    let all =
        |values: &[String]| values.iter().map(|value| make(value)).collect::<Result<Box<[T]>, String>>();
    Ok(OneOf { any: all(&wanted.any)?, none: all(&wanted.none)? })
}

fn texts(wanted: &model::Values) -> OneOf<Text> {
    let all = |values: &[String]| values.iter().map(|value| Text::compile(value)).collect();
    OneOf { any: all(&wanted.any), none: all(&wanted.none) }
}

fn blocks(wanted: &model::Blocks) -> Result<OneOf<Block>, String> {
    let all = |blocks: &[(std::net::IpAddr, u8)]| {
        blocks
            .iter()
            .map(|&(network, prefix)| Block::new(network, prefix))
            .collect::<Result<Box<[Block]>, String>>()
    };
    Ok(OneOf { any: all(&wanted.any)?, none: all(&wanted.none)? })
}

/// `10.0.0.0/8` or one address.
fn block(text: &str) -> Result<Block, String> {
    let wrong = || format!("{text:?} is neither an address nor a block of addresses");
    let (network, prefix) =
        text.split_once('/').map_or((text, None), |(network, prefix)| (network, Some(prefix)));
    let network: std::net::IpAddr = network.parse().map_err(|_| wrong())?;
    let whole = if network.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Ok(whole), str::parse).map_err(|_| wrong())?;
    if prefix > whole { Err(wrong()) } else { Block::new(network, prefix) }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is no port"))
}

fn field(name: &str) -> Result<Field, String> {
    Ok(match name {
        ":authority" => Field::Authority,
        ":method" => Field::Method,
        ":path" => Field::Target,
        ":scheme" => Field::Scheme,
        _ if name.eq_ignore_ascii_case("host") => Field::Authority,
        _ => Field::Named(HeaderName::try_from(name).map_err(|_| format!("{name:?} is no header"))?),
    })
}

/// The one name in brackets.
fn single<'k>(key: &str, rest: &'k str) -> Result<&'k str, String> {
    let name = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    name.filter(|name| !name.is_empty() && !name.contains(['[', ']'])).ok_or_else(|| wrong_brackets(key))
}

/// `[a][b]`
fn brackets(key: &str, mut rest: &str) -> Result<Box<[Box<str>]>, String> {
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (name, behind) = rest
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .ok_or_else(|| wrong_brackets(key))?;
        if name.is_empty() || name.contains('[') {
            return Err(wrong_brackets(key));
        }
        names.push(name.into());
        rest = behind;
    }
    if names.is_empty() { Err(wrong_brackets(key)) } else { Ok(names.into()) }
}

fn wrong_brackets(key: &str) -> String {
    format!("`{key}` wants its argument in brackets, such as `request.headers[x-token]`")
}

/// A principal in every domain that it means: `cluster.local` and each of ours stand for all of ours.
fn aliases(principal: &str, trust: &Trust) -> Vec<String> {
    let as_written = || vec![principal.to_owned()];
    let Some((domain, rest)) = principal.split_once('/') else { return as_written() };
    if rest.split('/').count() != 4 || domain == "*" {
        return as_written();
    }
    let own = || std::iter::once(&trust.domain).chain(&trust.aliases);
    let alike = |own: &str| match domain.strip_prefix('*') {
        Some(tail) => own.ends_with(tail),
        None => own == domain,
    };
    if domain != "cluster.local" && !own().any(|own| alike(own)) {
        return as_written();
    }
    let mut all: Vec<String> = Vec::new();
    for own in own() {
        let one = if alike(own) { principal.to_owned() } else { format!("{own}/{rest}") };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_of_ours_counts_in_every_domain_of_ours() {
        let trust = Trust { domain: "td".into(), aliases: vec!["old".into(), "other-td".into()] };
        let rows: [(&str, &[&str]); 7] = [
            ("td/ns/a/sa/b", &["td/ns/a/sa/b", "old/ns/a/sa/b", "other-td/ns/a/sa/b"]),
            ("old/ns/a/sa/b", &["td/ns/a/sa/b", "old/ns/a/sa/b", "other-td/ns/a/sa/b"]),
            ("cluster.local/ns/a/sa/b", &["td/ns/a/sa/b", "old/ns/a/sa/b", "other-td/ns/a/sa/b"]),
            ("foreign/ns/a/sa/b", &["foreign/ns/a/sa/b"]),
            ("*/ns/a/sa/b", &["*/ns/a/sa/b"]),
            ("*td/ns/a/sa/b", &["*td/ns/a/sa/b", "old/ns/a/sa/b"]),
            ("td*", &["td*"]),
        ];
        for (principal, wanted) in rows {
            assert_eq!(aliases(principal, &trust), wanted, "{principal}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named() {
        let policy = model::AuthorizationPolicy {
            origin: model::ObjectRef::default(),
            action: PolicyAction::Allow,
            dry_run: false,
            rules: Vec::new(),
        };
        let compiler = Compiler { policy: &policy, trust: &Trust::default() };
        for (key, value, why) in [
            ("request.headers", "x", "brackets"),
            ("request.headers[a][b]", "x", "brackets"),
            ("request.headers[a b]", "x", "no header"),
            ("request.auth.claims[]", "x", "brackets"),
            ("request.auth.claims[a]b", "x", "brackets"),
            ("source.ip", "10.0.0.0/33", "neither"),
            ("destination.port", "http", "no port"),
            ("experimental.envoy.filters.x[y]", "z", "Envoy"),
            ("source.color", "red", "unknown attribute"),
        ] {
            let values = model::Values { any: vec![value.into()], none: Vec::new() };
            let error = compiler.condition(&model::PolicyCondition { key: key.into(), values }).unwrap_err();
            assert!(error.contains(why), "{key}: {error}");
        }
    }
}
