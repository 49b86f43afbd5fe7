//! Tables of virtual hosts: who gets a domain, and in which order the routes of several owners are tried.

use crate::model::{Match, ObjectRef, Route, StringMatch, Table, VirtualHost};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a request of any kind matches.
pub(crate) fn is_catch_all(matches: &Match) -> bool {
    let any_path = match &matches.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => prefix.is_empty() || prefix == "/",
        Some(StringMatch::Regex(regex)) => regex == ".*" || regex == "/.*",
        Some(StringMatch::Exact(_) | StringMatch::Present) => false,
    };
    any_path && Match { uri: None, ignore_uri_case: false, ..matches.clone() } == Match::default()
}

/// The table of a gateway port: rules of several owners for one domain come one after the other.
#[derive(Default)]
pub(crate) struct GatewayTable {
    hosts: BTreeMap<String, Vec<Route>>,
}

impl GatewayTable {
    /// Adds routes behind those that are there. Where both have one that takes every request the later one is
    /// never reached: then the owner of the earlier one.
    pub fn append(&mut self, domain: &str, routes: &[Route]) -> Option<ObjectRef> {
        let catch_all = |route: &&Route| is_catch_all(&route.matches);
        let all = self.hosts.entry(domain.to_owned()).or_default();
        let earlier = all.iter().find(catch_all).map(|route| route.origin.clone());
        all.extend_from_slice(routes);
        earlier.filter(|_| routes.iter().any(|route| catch_all(&route)))
    }

    /// Adds routes for a domain that nobody has claimed yet.
    pub fn offer(&mut self, domain: &str, routes: impl FnOnce() -> Vec<Route>) {
        self.hosts.entry(domain.to_owned()).or_insert_with(routes);
    }

    /// The finished table; `port` appears in names only.
    pub fn finish(self, port: u16) -> Table {
        let hosts = self.hosts.into_iter().map(|(domain, routes)| VirtualHost {
            name: format!("{domain}:{port}"),
            domains: vec![domain],
            routes: in_order(routes),
        });
        Table { hosts: hosts.collect() }
    }
}

/// Catch-all routes last, and nothing behind the first of them, which could never be reached.
fn in_order(routes: Vec<Route>) -> Vec<Route> {
    let (last, mut first): (Vec<Route>, Vec<Route>) =
        routes.into_iter().partition(|r| is_catch_all(&r.matches));
    first.extend(last.into_iter().take(1));
    first
}

/// The table of a mesh port: a domain belongs to whoever claims it first.
#[derive(Default)]
pub(crate) struct MeshTable {
    hosts: Vec<VirtualHost>,
    taken: BTreeSet<String>,
}

impl MeshTable {
    /// Adds a virtual host under those of `domains` that are free.
    pub fn claim(&mut self, name: String, domains: Vec<String>, routes: Vec<Route>) {
        let domains: Vec<String> =
            domains.into_iter().filter(|domain| self.taken.insert(domain.clone())).collect();
        if !domains.is_empty() {
            self.hosts.push(VirtualHost { name, domains, routes });
        }
    }

    /// The finished table.
    pub fn finish(self) -> Table {
        Table { hosts: self.hosts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, DirectResponse, MessageOps};

    fn route(name: &str, uri: Option<StringMatch>) -> Route {
        let direct = DirectResponse { status: 200, body: Vec::new(), headers: MessageOps::default() };
        Route {
            name: name.to_owned(),
            matches: Match { uri, ..Match::default() },
            action: Action::Direct(direct),
            origin: ObjectRef::default(),
        }
    }

    fn names(routes: &[Route]) -> Vec<&str> {
        routes.iter().map(|route| route.name.as_str()).collect()
    }

    #[test]
    fn catch_alls_go_behind_the_rules_of_all_owners() {
        let mut table = GatewayTable::default();
        let prefix = |text: &str| Some(StringMatch::Prefix(text.to_owned()));
        table.append("a.com", &[route("a1", prefix("/a")), route("a2", None)]);
        let earlier = table.append("a.com", &[route("b1", prefix("/b")), route("b2", prefix("/"))]);
        assert_eq!(earlier, Some(ObjectRef::default()));
        table.offer("a.com", || vec![route("late", None)]);
        let table = table.finish(80);
        assert_eq!(names(&table.hosts[0].routes), ["a1", "b1", "a2"]);
    }

    #[test]
    fn a_domain_belongs_to_whoever_claims_it_first() {
        let mut table = MeshTable::default();
        let both = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        table.claim("one".to_owned(), both("a", "b"), vec![route("1", None)]);
        table.claim("two".to_owned(), both("b", "c"), vec![route("2", None)]);
        table.claim("three".to_owned(), both("a", "c"), vec![route("3", None)]);
        let table = table.finish();
        let domains: Vec<_> = table.hosts.iter().map(|host| host.domains.join(",")).collect();
        assert_eq!(domains, ["a,b", "c"]);
    }

    #[test]
    fn any_condition_keeps_a_match_from_catching_all() {
        let all = Match { uri: Some(StringMatch::Prefix("/".to_owned())), ..Match::default() };
        assert!(is_catch_all(&all) && is_catch_all(&Match::default()));
        let post = Match { method: Some(StringMatch::Exact("POST".to_owned())), ..all };
        assert!(!is_catch_all(&post));
    }
}
