//! Which name is to be looked up when, and what follows from an answer. Pure: time and chance are arguments.

use super::{Answer, Event, Found, Targets};
use crate::clock::{Duration, Instant};
use proxy_config::model::DnsTarget;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An answer holds at most this long, whatever its time to live (Istio's `dnsRefreshRate`).
const REFRESH: Duration = Duration::from_secs(60);
/// It holds at least this long; a failed look-up is repeated after this, then after twice that, and so on.
const MIN_REFRESH: Duration = Duration::from_secs(1);
/// Endpoints of one cluster; further addresses are left out.
const MAX_ENDPOINTS: usize = 1_000;

#[derive(Debug)]
struct Name {
    /// When it is to be asked for; `None`: it is being asked for.
    due: Option<Instant>,
    /// The last good answer.
    addresses: Option<Vec<IpAddr>>,
    /// Failures in a row.
    failures: u32,
}

#[derive(Debug)]
struct Cluster {
    targets: Vec<DnsTarget>,
    /// `None`: what there was under other words stays.
    told: Option<Found>,
}

/// All names and the clusters they are for.
#[derive(Debug, Default)]
pub struct Names {
    names: BTreeMap<String, Name>,
    clusters: BTreeMap<String, Cluster>,
}

impl Names {
    /// Keeps exactly these clusters up to date. What is known of them is told.
    pub fn apply(&mut self, now: Instant, targets: &Targets) -> Vec<Event> {
        let wanted: BTreeSet<&str> =
            targets.iter().flat_map(|(_, list)| list).map(|t| t.host.as_str()).collect();
        self.names.retain(|name, _| wanted.contains(name.as_str()));
        for name in wanted {
            if literal(name).is_none() && !self.names.contains_key(name) {
                self.names.insert(name.to_owned(), Name { due: Some(now), addresses: None, failures: 0 });
            }
        }
        self.clusters = targets
            .iter()
            .map(|(name, list)| (name.clone(), Cluster { targets: list.clone(), told: None }))
            .collect();
        self.tell()
    }

    /// At most `places` names that are to be asked for now.
    pub fn due(&mut self, now: Instant, places: usize) -> Vec<String> {
        let due = self.names.iter_mut().filter(|(_, name)| name.due.is_some_and(|at| at <= now));
        due.take(places)
            .map(|(host, name)| {
                name.due = None;
                host.clone()
            })
            .collect()
    }

    /// When the next name is due.
    pub fn next(&self) -> Option<Instant> {
        self.names.values().filter_map(|name| name.due).min()
    }

    /// Takes an answer; what it changes is told. `chance` is uniform in 0..1 and spreads repetitions.
    pub fn answered(
        &mut self,
        now: Instant,
        host: &str,
        answer: Result<Answer, String>,
        chance: f64,
    ) -> Vec<Event> {
        // Nobody wants it any more.
        let Some(name) = self.names.get_mut(host) else { return Vec::new() };
        let reason = match answer {
            Ok(answer) if !answer.addresses.is_empty() => {
                if name.failures > 0 {
                    tracing::info!(name = host, "name resolves again");
                }
                name.failures = 0;
                name.addresses = Some(answer.addresses);
                name.due = Some(now + answer.ttl.clamp(MIN_REFRESH, REFRESH));
                return self.tell();
            }
            Ok(_) => "no addresses".to_owned(),
            Err(reason) => reason,
        };
        if name.failures == 0 {
            let stays = name.addresses.as_ref().map_or(0, Vec::len);
            tracing::warn!(name = host, reason, stays, "name does not resolve");
        }
        let pause = MIN_REFRESH.saturating_mul(1 << name.failures.min(16)).min(REFRESH);
        name.failures = name.failures.saturating_add(1);
        name.due = Some(now + pause.mul_f64(0.75 + chance / 2.0));
        let mut events = vec![Event::Failed(host.to_owned(), reason)];
        events.append(&mut self.tell());
        events
    }

    /// Asks anew, a little later, for all that is being asked for.
    pub fn ask_again(&mut self, now: Instant) {
        for name in self.names.values_mut() {
            name.due.get_or_insert(now + REFRESH);
        }
    }

    /// Clusters whose endpoints are not those told last. One of which nothing is found has none as soon as every name
    /// of it was asked for in vain: until then it has what it had.
    fn tell(&mut self) -> Vec<Event> {
        let names = &self.names;
        let in_vain = |target: &DnsTarget| names.get(&target.host).is_some_and(|name| name.failures > 0);
        let mut events = Vec::new();
        for (key, cluster) in &mut self.clusters {
            let found = endpoints(names, &cluster.targets);
            let settled = !found.is_empty() || cluster.targets.iter().all(in_vain);
            if settled && cluster.told.as_ref() != Some(&found) {
                cluster.told = Some(found.clone());
                events.push(Event::Endpoints(key.clone(), found));
            }
        }
        events
    }
}

/// What is known of the targets, each address once, in an order that does not depend on that of the answers.
fn endpoints(names: &BTreeMap<String, Name>, targets: &[DnsTarget]) -> Found {
    let mut found = BTreeMap::new();
    for target in targets {
        let literal = literal(&target.host).map(|ip| vec![ip]);
        let known = literal.as_ref().or_else(|| names.get(&target.host)?.addresses.as_ref());
        for ip in known.into_iter().flatten() {
            found.entry((*ip, target.port).into()).or_insert(target.weight);
        }
    }
    found.into_iter().take(MAX_ENDPOINTS).collect()
}

/// A name that is an address needs no look-up.
fn literal(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inner.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(list: &[(&str, &[(&str, u16)])]) -> Targets {
        let target =
            |(host, port): &(&str, u16)| DnsTarget { host: (*host).to_owned(), port: *port, weight: 1 };
        list.iter().map(|(key, hosts)| ((*key).to_owned(), hosts.iter().map(target).collect())).collect()
    }

    fn answer(ips: &[&str], ttl: u64) -> Result<Answer, String> {
        let addresses = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Ok(Answer { addresses, ttl: Duration::from_secs(ttl) })
    }

    fn told(key: &str, addresses: &[&str]) -> Event {
        Event::Endpoints(key.to_owned(), addresses.iter().map(|a| (a.parse().unwrap(), 1)).collect())
    }

    #[test]
    fn one_name_is_asked_for_once_however_many_clusters_want_it() {
        let now = crate::clock::now();
        let mut names = Names::default();
        assert_eq!(names.apply(now, &targets(&[("x", &[("a", 80)]), ("y", &[("a", 81)])])), []);
        assert_eq!(names.due(now, 9), ["a"]);
        assert_eq!(names.due(now, 9), [""; 0]);
        let events = names.answered(now, "a", answer(&["192.0.2.1"], 30), 0.5);
        assert_eq!(events, [told("x", &["192.0.2.1:80"]), told("y", &["192.0.2.1:81"])]);
    }

    #[test]
    fn an_answer_holds_for_its_time_to_live_within_bounds() {
        for (ttl, wanted) in [(0, 1), (1, 1), (30, 30), (60, 60), (86_400, 60)] {
            let now = crate::clock::now();
            let mut names = Names::default();
            names.apply(now, &targets(&[("x", &[("a", 80)])]));
            names.due(now, 9);
            names.answered(now, "a", answer(&["192.0.2.1"], ttl), 0.5);
            assert_eq!(names.next(), Some(now + Duration::from_secs(wanted)), "{ttl}");
        }
    }

    #[test]
    fn a_failure_keeps_the_last_answer_and_is_repeated_ever_more_slowly() {
        let now = crate::clock::now();
        let mut names = Names::default();
        let wanted = targets(&[("x", &[("a", 80)])]);
        names.apply(now, &wanted);
        names.answered(now, "a", answer(&["192.0.2.1"], 30), 0.5);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let events = names.answered(now, "a", Err("refused".to_owned()), 0.5);
            assert_eq!(events, [Event::Failed("a".to_owned(), "refused".to_owned())]);
            assert_eq!(names.next(), Some(now + Duration::from_secs(seconds)));
        }
        let empty = names.answered(now, "a", answer(&[], 30), 0.5);
        assert_eq!(empty, [Event::Failed("a".to_owned(), "no addresses".to_owned())]);
        assert_eq!(names.apply(now, &wanted), [told("x", &["192.0.2.1:80"])]);
        assert_eq!(names.answered(now, "a", answer(&["192.0.2.1"], 30), 0.5), []);
        assert_eq!(names.answered(now, "a", Err("refused".to_owned()), 0.0).len(), 1);
        assert_eq!(names.next(), Some(now + Duration::from_millis(750)));
    }

    #[test]
    fn a_cluster_with_other_names_of_which_none_is_found_has_no_endpoints() {
        let now = crate::clock::now();
        let mut names = Names::default();
        names.apply(now, &targets(&[("x", &[("a", 80)]), ("y", &[("a", 80)])]));
        names.answered(now, "a", answer(&["192.0.2.1"], 30), 0.5);
        let others = targets(&[("x", &[("b", 80), ("c", 80)]), ("y", &[("a", 80)])]);
        assert_eq!(names.apply(now, &others), [told("y", &["192.0.2.1:80"])], "what was known stays for now");
        let failed = |host: &str| Event::Failed(host.to_owned(), "refused".to_owned());
        let mut fails = |host| names.answered(now, host, Err("refused".to_owned()), 0.5);
        assert_eq!(fails("b"), [failed("b")], "there is still hope");
        assert_eq!(fails("c"), [failed("c"), told("x", &[])]);
        assert_eq!(fails("c"), [failed("c")]);
        assert_eq!(names.answered(now, "c", answer(&["192.0.2.3"], 30), 0.5), [told("x", &["192.0.2.3:80"])]);
    }

    #[test]
    fn only_a_change_is_told_and_the_order_of_an_answer_is_none() {
        let now = crate::clock::now();
        let mut names = Names::default();
        names.apply(now, &targets(&[("x", &[("a", 80), ("127.0.0.1", 80), ("[::1]", 80)])]));
        let first = names.answered(now, "a", answer(&["192.0.2.2", "192.0.2.1"], 30), 0.5);
        assert_eq!(first, [told("x", &["127.0.0.1:80", "192.0.2.1:80", "192.0.2.2:80", "[::1]:80"])]);
        assert_eq!(names.answered(now, "a", answer(&["192.0.2.1", "192.0.2.2"], 30), 0.5), []);
        let fewer = names.answered(now, "a", answer(&["192.0.2.1"], 30), 0.5);
        assert_eq!(fewer, [told("x", &["127.0.0.1:80", "192.0.2.1:80", "[::1]:80"])]);
    }

    #[test]
    fn addresses_are_told_at_once_and_never_asked_for() {
        let now = crate::clock::now();
        let mut names = Names::default();
        let events = names.apply(now, &targets(&[("x", &[("192.0.2.9", 80)])]));
        assert_eq!(events, [told("x", &["192.0.2.9:80"])]);
        assert_eq!((names.due(now, 9).len(), names.next()), (0, None));
    }

    #[test]
    fn what_nobody_wants_any_more_is_forgotten() {
        let now = crate::clock::now();
        let mut names = Names::default();
        names.apply(now, &targets(&[("x", &[("a", 80)])]));
        names.due(now, 9);
        names.apply(now, &targets(&[]));
        assert_eq!(names.answered(now, "a", answer(&["192.0.2.1"], 30), 0.5), []);
        assert_eq!(names.next(), None);
    }

    #[test]
    fn no_more_is_asked_for_than_there_are_places() {
        let now = crate::clock::now();
        let mut names = Names::default();
        names.apply(now, &targets(&[("x", &[("a", 80), ("b", 80), ("c", 80)])]));
        assert_eq!(names.due(now, 2), ["a", "b"]);
        assert_eq!(names.due(now, 2), ["c"]);
    }
}
