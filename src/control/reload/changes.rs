//! What a reload changed and what it refused: for the log and for the admin API.

use crate::clock::{Duration, SystemTime};
use proxy_config::model::{Config, ExtAuthz, Guard, ObjectRef, Route, Tables};
use proxy_config::report::{Level, Problem, Report};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Problems written to the log at one reload; the rest is counted and on the admin API.
const MAX_LOGGED: usize = 50;
/// Names spelled out in the log line of a reload.
const MAX_NAMED: usize = 5;

/// Names that came, went, or mean something else than before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Only in the new configuration.
    pub added: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
    /// In both, not equal.
    pub changed: Vec<String>,
}

impl Difference {
    fn between<K: Ord + fmt::Display, V: PartialEq>(
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
    ) -> Difference {
        let names = |keys: Vec<&K>| keys.into_iter().map(ToString::to_string).collect();
        Difference {
            added: names(new.keys().filter(|key| !old.contains_key(*key)).collect()),
            removed: names(old.keys().filter(|key| !new.contains_key(*key)).collect()),
            changed: names(
                new.iter()
                    .filter(|(key, v)| old.get(*key).is_some_and(|o| o != *v))
                    .map(|(key, _)| key)
                    .collect(),
            ),
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    fn json(&self) -> Value {
        json!({ "added": self.added, "removed": self.removed, "changed": self.changed })
    }
}

/// `+a +b -c ~d`, at most a few names of each kind.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (sign, names) in [('+', &self.added), ('-', &self.removed), ('~', &self.changed)] {
            for name in names.iter().take(MAX_NAMED) {
                write!(f, "{}{sign}{name}", if first { "" } else { ", " })?;
                first = false;
            }
            if names.len() > MAX_NAMED {
                write!(f, " and {sign}{} more", names.len() - MAX_NAMED)?;
            }
        }
        Ok(())
    }
}

/// What differs between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Objects that routes follow from: VirtualServices, functions, Services.
    pub objects: Difference,
    /// By name, without their routes: where they are, and how they stand towards clients.
    pub listeners: Difference,
    /// By name, endpoints and policy included.
    pub clusters: Difference,
    /// Revisions of functions, by key.
    pub functions: Difference,
    /// What is asked of callers, by workload, and who decides for CUSTOM policies, by name.
    pub policies: Difference,
    /// Whether settings of the whole mesh differ.
    pub mesh: bool,
}

impl Changes {
    /// From `old` to `new`.
    pub fn between(old: &Config, new: &Config) -> Changes {
        let listeners = |config: &Config| -> BTreeMap<String, _> {
            config.listeners.iter().map(|l| (l.name.clone(), l.without_routes())).collect()
        };
        fn by<'a, T>(items: &'a [T], name: impl Fn(&'a T) -> &'a str) -> BTreeMap<&'a str, &'a T> {
            items.iter().map(|item| (name(item), item)).collect()
        }
        Changes {
            objects: Difference::between(&objects(old), &objects(new)),
            listeners: Difference::between(&listeners(old), &listeners(new)),
            clusters: Difference::between(&by(&old.clusters, |c| &c.name), &by(&new.clusters, |c| &c.name)),
            functions: Difference::between(&by(&old.revisions, |r| &r.key), &by(&new.revisions, |r| &r.key)),
            policies: Difference::between(&policies(old), &policies(new)),
            mesh: old.mesh != new.mesh,
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// For the admin API.
    pub fn json(&self) -> Value {
        json!({
            "objects": self.objects.json(),
            "listeners": self.listeners.json(),
            "clusters": self.clusters.json(),
            "functions": self.functions.json(),
            "policies": self.policies.json(),
            "mesh": self.mesh,
        })
    }
}

/// One line: `objects: +VirtualService default/a; clusters: ~outbound|80||b`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing that is served");
        }
        let parts = [
            ("listeners", &self.listeners),
            ("objects", &self.objects),
            ("functions", &self.functions),
            ("clusters", &self.clusters),
            ("policies", &self.policies),
        ];
        let mut first = true;
        for (word, difference) in parts.iter().filter(|(_, difference)| !difference.is_empty()) {
            write!(f, "{}{word}: {difference}", if first { "" } else { "; " })?;
            first = false;
        }
        if self.mesh {
            write!(f, "{}mesh settings", if first { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// What is asked of callers, and who decides, by name.
fn policies(config: &Config) -> BTreeMap<&str, (Option<&Guard>, Option<&ExtAuthz>)> {
    let guards = config.guards.iter().map(|guard| (guard.name.as_str(), (Some(guard), None)));
    let deciders = config.ext_authz.iter().map(|one| (one.name.as_str(), (None, Some(one))));
    guards.chain(deciders).collect()
}

/// Routes by the object they were written in, with listener and virtual host.
fn objects(config: &Config) -> BTreeMap<ObjectRef, Vec<(&str, &str, &Route)>> {
    let mut found: BTreeMap<ObjectRef, Vec<(&str, &str, &Route)>> = BTreeMap::new();
    for listener in &config.listeners {
        let tables: Vec<_> = match &listener.tables {
            Tables::One(table) => vec![table],
            Tables::ByPort(tables) => tables.values().collect(),
        };
        for host in tables.into_iter().flat_map(|table| &table.hosts) {
            for route in &host.routes {
                let places = found.entry(route.origin.clone()).or_default();
                places.push((&listener.name, &host.name, route));
            }
        }
    }
    found
}

/// One reload: what came of it.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Counts the configurations that were served; the first is 1. For a refused one, that which stays.
    pub generation: u64,
    /// When it was finished.
    pub at: SystemTime,
    /// From reading the files to serving.
    pub took: Duration,
    /// Why nothing of it is served, where that is so (`--strict`, or a failure of the whole).
    pub refused: Option<String>,
    /// Against the configuration before; `None`: there was none, all of it is new.
    pub changes: Option<Changes>,
    /// Everything that was found.
    pub report: Report,
    /// Objects that are not served as written: their last good version is, or none.
    pub quarantined: Vec<ObjectRef>,
}

impl Reload {
    /// Writes it to the log; problems that `before` already had are counted only.
    pub fn log(&self, before: Option<&Reload>) {
        let known = before.map_or(&[][..], |reload| reload.report.problems());
        let tells = |p: &&Problem| p.level != Level::Info && !known.contains(p);
        let new: Vec<&Problem> = self.report.problems().iter().filter(tells).collect();
        for problem in new.iter().take(MAX_LOGGED) {
            match problem.level {
                Level::Error => tracing::error!("{problem}"),
                Level::Warning | Level::Info => tracing::warn!("{problem}"),
            }
        }
        if new.len() > MAX_LOGGED {
            tracing::warn!(
                "{} more problems are listed at /config_dump of the admin API",
                new.len() - MAX_LOGGED
            );
        }
        let [errors, warnings] = self.counts();
        let took_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        let quarantined = self.quarantined.len();
        match &self.refused {
            Some(reason) => tracing::error!(
                generation = self.generation,
                errors,
                "configuration refused, the one before it stays: {reason}"
            ),
            None if self.generation == 1 => {
                tracing::info!(generation = 1, errors, warnings, quarantined, took_ms, "configuration loaded")
            }
            None => tracing::info!(
                generation = self.generation,
                errors,
                warnings,
                quarantined,
                took_ms,
                "configuration changed: {}",
                self.changes.clone().unwrap_or_default()
            ),
        }
    }

    /// How many errors and warnings were found.
    pub fn counts(&self) -> [usize; 2] {
        let count = |level| self.report.problems().iter().filter(|p| p.level == level).count();
        [count(Level::Error), count(Level::Warning)]
    }

    /// For the admin API, which shows it beside what is served.
    pub fn json(&self, served: &Config) -> Value {
        let [errors, warnings] = self.counts();
        let all = || Changes::between(&Config::default(), served);
        let changes = self.changes.clone().unwrap_or_else(all);
        let quarantined: Vec<String> = self.quarantined.iter().map(ToString::to_string).collect();
        json!({
            "generation": self.generation,
            "time": rfc3339(self.at),
            "took_seconds": self.took.as_secs_f64(),
            "refused": self.refused,
            "errors": errors,
            "warnings": warnings,
            "quarantined": quarantined,
            "changes": changes.json(),
            "problems": self.report.json(),
        })
    }
}

/// UTC, to the millisecond: `2026-01-31T23:59:59.999Z`. Days to a date as in Howard Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms".
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_config::model::{
        Action, Bind, Cluster, DirectResponse, Direction, Endpoints, Listener, Match, MessageOps, Table,
        VirtualHost,
    };

    fn route(origin: &str, status: u16) -> Route {
        Route {
            name: "default".to_owned(),
            matches: Match::default(),
            action: Action::Direct(DirectResponse {
                status,
                body: Vec::new(),
                headers: MessageOps::default(),
            }),
            origin: ObjectRef {
                kind: "VirtualService".to_owned(),
                namespace: "default".to_owned(),
                name: origin.to_owned(),
                ..ObjectRef::default()
            },
        }
    }

    fn config(routes: &[(&str, u16)], clusters: &[&str]) -> Config {
        let routes = routes.iter().map(|(origin, status)| route(origin, *status)).collect();
        let host = VirtualHost { name: "h".to_owned(), domains: vec!["*".to_owned()], routes };
        Config {
            listeners: vec![Listener {
                name: "gateway:8080".to_owned(),
                direction: Direction::Gateway,
                bind: Bind::DefaultGateway,
                tables: Tables::One(Table { hosts: vec![host] }),
                origins: Vec::new(),
                tls: proxy_config::model::ListenerTls::Plain,
                guard: None,
                forwarding: proxy_config::model::Forwarding::at(Direction::Gateway),
            }],
            clusters: clusters
                .iter()
                .map(|name| Cluster {
                    name: (*name).to_owned(),
                    identity: Default::default(),
                    protocol: proxy_config::model::Protocol::Http1,
                    endpoints: Endpoints::Static(Vec::new()),
                    policy: Default::default(),
                    concurrency: 0,
                    tls: None,
                    guard: None,
                })
                .collect(),
            ..Config::default()
        }
    }

    #[test]
    fn a_reload_says_in_one_line_what_it_changed() {
        let old = config(&[("a", 200), ("b", 200)], &["x"]);
        let rows = [
            (config(&[("a", 200), ("b", 200)], &["x"]), "nothing that is served"),
            (config(&[("a", 200), ("b", 404)], &["x"]), "objects: ~VirtualService default/b"),
            (
                config(&[("a", 200), ("c", 200)], &["x", "y"]),
                "objects: +VirtualService default/c, -VirtualService default/b; clusters: +y",
            ),
            (
                Config {
                    mesh: proxy_config::model::Mesh { concurrency: Some(2), ..Default::default() },
                    ..old.clone()
                },
                "mesh settings",
            ),
            (
                config(&[("a", 200), ("b", 200)], &["1", "2", "3", "4", "5", "6", "7"]),
                "clusters: +1, +2, +3, +4, +5 and +2 more, -x",
            ),
        ];
        let guard = |quarantined: &[&str]| Guard {
            name: "default/shop".to_owned(),
            namespace: "default".to_owned(),
            mtls: Default::default(),
            jwt: Vec::new(),
            policies: Vec::new(),
            quarantined: quarantined.iter().map(|name| route(name, 200).origin).collect(),
        };
        let with = |guards| Config { guards, ..old.clone() };
        assert_eq!(Changes::between(&old, &with(vec![guard(&[])])).to_string(), "policies: +default/shop");
        let (one, other) = (with(vec![guard(&[])]), with(vec![guard(&["p"])]));
        assert_eq!(Changes::between(&one, &other).to_string(), "policies: ~default/shop");
        let mut encrypted = old.clone();
        encrypted.listeners[0].forwarding.trusted_proxies = 1;
        assert_eq!(Changes::between(&old, &encrypted).to_string(), "listeners: ~gateway:8080");
        for (new, wanted) in rows {
            assert_eq!(Changes::between(&old, &new).to_string(), wanted);
        }
        let first = Changes::between(&Config::default(), &old);
        assert_eq!(first.listeners.added, ["gateway:8080"]);
    }

    #[test]
    fn times_are_written_as_in_rfc_3339() {
        let rows = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_704_067_199, "2023-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ];
        for (seconds, wanted) in rows {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), wanted);
        }
    }
}
