//! DestinationRules: which one a host gets, and what terms follow from it.
//!
//! Rules replace each other, they are never merged block into block: an exact host hides a wildcard one, port
//! settings replace all of a policy, a subset's block replaces the whole block.

use super::names;
use crate::model::{Balance, ClientTls, Limits, ObjectRef, Outlier, Policy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The parts of a traffic policy that replace each other as wholes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Blocks {
    /// `loadBalancer`.
    pub balance: Option<Balance>,
    /// `connectionPool`, its own defaults filled in.
    pub pool: Option<Pool>,
    /// `outlierDetection`, its own defaults filled in.
    pub outlier: Option<Outlier>,
    /// `tls`.
    pub tls: Option<Tls>,
}

/// `tls`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tls {
    /// DISABLE.
    Plain,
    /// Any other mode.
    Spoken(Arc<ClientTls>),
}

/// `connectionPool`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pool {
    /// How much at once.
    pub limits: Limits,
    /// `h2UpgradePolicy: UPGRADE`: HTTP/2 is spoken on HTTP/1.1 ports.
    pub upgrade: bool,
}

/// One `trafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// For all ports that have no settings of their own.
    pub blocks: Blocks,
    /// `portLevelSettings`.
    pub ports: BTreeMap<u16, Blocks>,
}

/// A named part of a host's endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Subset {
    /// Its name.
    pub name: String,
    /// All of these must be on an endpoint; none: every endpoint.
    pub labels: BTreeMap<String, String>,
    /// Its own terms.
    pub terms: Option<Terms>,
}

/// What is said about one host in one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rule {
    /// Completed, lower case; may be a pattern.
    pub host: String,
    /// Of the resource.
    pub namespace: String,
    /// The resource; of several for one host the first.
    pub origin: ObjectRef,
    /// Its terms.
    pub terms: Option<Terms>,
    /// Its subsets, unique by name.
    pub subsets: Vec<Subset>,
}

impl Rule {
    /// The subset of that name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// Takes what a later rule for the same host adds.
    fn join(&mut self, later: Rule) {
        if self.terms.is_none() {
            self.terms = later.terms;
        }
        for subset in later.subsets {
            if self.subset(&subset.name).is_none() {
                self.subsets.push(subset);
            }
        }
    }
}

/// All rules, several for one host already joined.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    by_namespace: BTreeMap<String, Namespace>,
}

/// The rules of one namespace by host.
#[derive(Debug, Default)]
struct Namespace {
    exact: BTreeMap<String, Rule>,
    patterns: BTreeMap<String, Rule>,
}

impl Namespace {
    fn find(&self, host: &str) -> Option<&Rule> {
        self.exact.get(host).or_else(|| {
            let covering = self.patterns.values().filter(|rule| names::covers(&rule.host, host));
            covering.max_by_key(|rule| names::specificity(&rule.host))
        })
    }
}

impl Rules {
    /// Joins rules for the same host in the same namespace in order of name: subsets come together (the
    /// first of a name wins), the first traffic policy wins.
    pub fn new(mut rules: Vec<Rule>) -> Rules {
        rules.sort_by(|a, b| a.origin.name.cmp(&b.origin.name));
        let mut by_namespace: BTreeMap<String, Namespace> = BTreeMap::new();
        for rule in rules {
            let namespace = by_namespace.entry(rule.namespace.clone()).or_default();
            let wildcard = names::is_wildcard(&rule.host);
            let rules = if wildcard { &mut namespace.patterns } else { &mut namespace.exact };
            match rules.get_mut(&rule.host) {
                Some(first) => first.join(rule),
                None => {
                    rules.insert(rule.host.clone(), rule);
                }
            }
        }
        Rules { by_namespace }
    }

    /// The one rule for `host`: of the caller's namespace, else of the service's, else of the mesh's root;
    /// within one the most specific host.
    pub fn find(&self, host: &str, service_namespace: &str, caller: &str, root: &str) -> Option<&Rule> {
        let tiers = [caller, service_namespace, root];
        tiers.iter().find_map(|namespace| self.by_namespace.get(*namespace)?.find(host))
    }
}

/// What holds for one port of a host, or of a subset of it.
fn blocks(rule: Option<&Terms>, subset: Option<&Terms>, port: u16) -> Blocks {
    let of = |terms: &Terms| terms.ports.get(&port).unwrap_or(&terms.blocks).clone();
    let base = rule.map_or(Blocks::default(), of);
    match subset {
        None => base,
        Some(terms) => match terms.ports.get(&port) {
            Some(blocks) => blocks.clone(),
            None => Blocks {
                balance: terms.blocks.balance.or(base.balance),
                pool: terms.blocks.pool.or(base.pool),
                outlier: terms.blocks.outlier.or(base.outlier),
                tls: terms.blocks.tls.clone().or(base.tls),
            },
        },
    }
}

/// The TLS written for one port of a host, or of a subset of it; `None`: no rule says anything.
pub(crate) fn tls(rule: Option<&Terms>, subset: Option<&Terms>, port: u16) -> Option<Tls> {
    blocks(rule, subset, port).tls
}

/// The terms for one port of a host, or of a subset of it; and whether HTTP/1.1 is upgraded to HTTP/2.
pub(crate) fn policy(rule: Option<&Terms>, subset: Option<&Terms>, port: u16) -> (Policy, bool) {
    let blocks = blocks(rule, subset, port);
    let pool = blocks.pool.unwrap_or_default();
    let balance = blocks.balance.unwrap_or(Policy::default().balance);
    (Policy { balance, limits: pool.limits, outlier: blocks.outlier }, pool.upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rule(namespace: &str, name: &str, host: &str) -> Rule {
        let origin = ObjectRef { name: name.to_owned(), ..ObjectRef::default() };
        Rule { host: host.to_owned(), namespace: namespace.to_owned(), origin, ..Rule::default() }
    }

    fn limits(max_connections: u32) -> Limits {
        Limits { max_connections, ..Limits::default() }
    }

    fn terms(balance: Option<Balance>, limits: Option<Limits>) -> Terms {
        let pool = limits.map(|limits| Pool { limits, upgrade: false });
        Terms { blocks: Blocks { balance, pool, outlier: None, tls: None }, ports: BTreeMap::new() }
    }

    fn policy(rule: Option<&Terms>, subset: Option<&Terms>, port: u16) -> Policy {
        super::policy(rule, subset, port).0
    }

    #[test]
    fn the_callers_namespace_goes_before_the_services_and_the_root() {
        let host = "a.srv.svc.cluster.local";
        let all = [("root", "r"), ("srv", "s"), ("me", "m")];
        for (present, expected) in [(3, "m"), (2, "s"), (1, "r")] {
            let rules = Rules::new(all[..present].iter().map(|(ns, name)| rule(ns, name, host)).collect());
            let found = rules.find(host, "srv", "me", "root").map(|rule| rule.origin.name.as_str());
            assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn an_exact_host_hides_a_pattern_and_a_longer_pattern_a_shorter() {
        let rules = Rules::new(vec![
            rule("n", "all", "*"),
            rule("n", "wide", "*.n.svc.cluster.local"),
            rule("n", "exact", "a.n.svc.cluster.local"),
        ]);
        for (host, expected) in [
            ("a.n.svc.cluster.local", "exact"),
            ("b.n.svc.cluster.local", "wide"),
            ("shop.example.com", "all"),
        ] {
            assert_eq!(rules.find(host, "n", "n", "root").map(|r| r.origin.name.as_str()), Some(expected));
        }
    }

    #[test]
    fn several_rules_for_one_host_bring_their_subsets_and_the_first_policy_wins() {
        let subset = |name: &str| Subset { name: name.to_owned(), ..Subset::default() };
        let mut a = rule("n", "a", "h");
        a.subsets = vec![subset("v1")];
        let mut b = rule("n", "b", "h");
        b.terms = Some(terms(None, Some(limits(7))));
        b.subsets = vec![subset("v2"), subset("v1")];
        let mut c = rule("n", "c", "h");
        c.terms = Some(terms(None, Some(limits(9))));
        let rules = Rules::new(vec![c, b, a]);
        let found = rules.find("h", "n", "n", "root").unwrap();
        assert_eq!(found.subsets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["v1", "v2"]);
        assert_eq!(policy(found.terms.as_ref(), None, 80).limits.max_connections, 7);
    }

    #[test]
    fn port_settings_replace_the_whole_policy() {
        let mut rule = terms(Some(Balance::Random), Some(limits(7)));
        rule.ports.insert(80, Blocks { balance: Some(Balance::RoundRobin), ..Blocks::default() });
        let at_80 = policy(Some(&rule), None, 80);
        assert_eq!((at_80.balance, at_80.limits.max_connections), (Balance::RoundRobin, u32::MAX));
        let at_81 = policy(Some(&rule), None, 81);
        assert_eq!((at_81.balance, at_81.limits.max_connections), (Balance::Random, 7));
    }

    #[test]
    fn a_subsets_block_replaces_the_whole_block_and_leaves_the_others() {
        let mut whole = limits(7);
        whole.connect_timeout = Duration::from_millis(30);
        let rule = terms(Some(Balance::Random), Some(whole));
        let own = Limits { max_requests_per_connection: Some(1), ..Limits::default() };
        let got = policy(Some(&rule), Some(&terms(None, Some(own))), 80);
        assert_eq!(got.balance, Balance::Random);
        assert_eq!(got.limits, own);
    }

    #[test]
    fn a_subsets_port_settings_replace_everything() {
        let rule = terms(Some(Balance::Random), Some(limits(7)));
        let mut subset = terms(Some(Balance::RoundRobin), None);
        subset.ports.insert(80, Blocks::default());
        assert_eq!(policy(Some(&rule), Some(&subset), 80), Policy::default());
    }
}
