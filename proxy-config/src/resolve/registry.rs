//! Every destination there is: Kubernetes Services, ServiceEntries, functions, their revisions and tags.
//!
//! Built once per resolution; answers what a destination written in a route comes to. It says what is
//! missing and never decides what that means for the object that asked.

use super::names;
use super::rules::{Rule, Rules, Subset};
use crate::model::{DnsTarget, Endpoint, Identity, ObjectRef, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// The port on which functions are called.
pub(crate) const FUNCTION_PORT: u16 = 80;

/// Labels of an endpoint, a Pod or a revision.
pub(crate) type Labels = BTreeMap<String, String>;

/// One host that can be called.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Fully qualified, lower case; a pattern for a ServiceEntry with one.
    pub host: String,
    /// Of the resource it follows from.
    pub namespace: String,
    /// Ascending, no number twice.
    pub ports: Vec<Port>,
    /// What is behind it.
    pub backing: Backing,
    /// Other names it answers to on the mesh listener (addresses).
    pub addresses: Vec<String>,
    /// The resource.
    pub origin: ObjectRef,
    /// What it is called in metrics.
    pub identity: Identity,
    /// Who answers for it.
    pub behind: Behind,
}

/// The workloads behind a service, as objects that ask something of callers select them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behind {
    /// Their namespace.
    pub namespace: String,
    /// What they carry, as far as endpoints do not tell.
    pub labels: Vec<Labels>,
    /// What they can be named as: kind and name.
    pub names: Vec<(&'static str, String)>,
    /// They are not of the mesh: only objects that select or name them concern them.
    pub outside: bool,
    /// Their service accounts, as far as they are known: `namespace/name`.
    pub accounts: BTreeSet<String>,
    /// Names that their certificates have, as written by hand, without `spiffe://`.
    pub certified: Vec<String>,
}

/// Whether an endpoint with these labels has a proxy of the mesh in front.
pub(crate) fn in_mesh(labels: &Labels) -> bool {
    labels.get("security.istio.io/tlsMode").is_some_and(|mode| mode == "istio")
}

impl Service {
    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// One port of a service.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// As callers dial it.
    pub number: u16,
    /// Whether HTTP may be spoken on it.
    pub http: bool,
    /// Spoken to the endpoints.
    pub protocol: Protocol,
    /// Where they are; unused where the service is backed by revisions.
    pub source: Source,
}

/// The endpoints of a port, with their labels.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Known addresses.
    Static(Vec<(Endpoint, Labels)>),
    /// Names to look up.
    Dns(Vec<(DnsTarget, Labels)>),
}

impl Source {
    /// Whether there is nothing to call, and never will be.
    pub fn is_empty(&self) -> bool {
        match self {
            Source::Static(all) => all.is_empty(),
            Source::Dns(all) => all.is_empty(),
        }
    }
}

/// What is behind a host.
#[derive(Clone, Debug)]
pub(crate) enum Backing {
    /// The endpoints of its ports.
    Endpoints,
    /// A split over revisions, by their hosts.
    Split {
        /// Host of a revision (existing or not) and its share.
        shares: Vec<(String, u64)>,
        /// Every revision of the function: host and labels.
        revisions: Vec<(String, Labels)>,
    },
    /// One revision.
    Revision {
        /// Its key.
        key: String,
        /// The host of its function.
        function: String,
    },
}

/// A destination as a route names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference<'a> {
    /// Completed, lower case.
    pub host: &'a str,
    /// `destination.subset`.
    pub subset: Option<&'a str>,
    /// `destination.port.number`.
    pub port: Option<u16>,
    /// The port the request came for.
    pub dialled: u16,
}

/// Why a destination does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No such host; the one probably meant.
    Host(Option<String>),
    /// The host has no such port; those it has.
    Port(u16, Vec<u16>),
    /// Several ports, none written, and the dialled one is not among them.
    AmbiguousPort(Vec<u16>),
    /// No DestinationRule defines the subset; those defined.
    Subset(Vec<String>),
    /// A subset of a function whose labels no revision carries.
    NoRevision,
}

/// What a destination comes to: clusters and their shares. Where it does not exist the one cluster is absent
/// from the configuration.
pub(crate) struct Found {
    /// Never empty.
    pub clusters: Vec<(String, u64)>,
    /// Why it does not exist, where it does not.
    pub missing: Option<Missing>,
}

/// All services and the rules for them.
pub(crate) struct Registry {
    services: BTreeMap<String, Service>,
    rules: Rules,
    caller: String,
    root: String,
}

impl Registry {
    /// `caller` is the namespace whose rules go first, `root` the one whose rules go last.
    pub fn new(services: BTreeMap<String, Service>, rules: Rules, caller: &str, root: &str) -> Registry {
        Registry { services, rules, caller: caller.to_owned(), root: root.to_owned() }
    }

    /// In order of host.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The service that answers to `host`: of that very name, else the narrowest pattern over it.
    pub fn service(&self, host: &str) -> Option<&Service> {
        self.services.get(host).or_else(|| {
            // Patterns begin with `*`, which sorts before every letter and digit.
            let first = "*".to_owned();
            let patterns = self.services.range(first..).map(|(_, service)| service);
            let patterns = patterns.take_while(|service| names::is_wildcard(&service.host));
            patterns
                .filter(|service| names::covers(&service.host, host))
                .max_by_key(|service| names::specificity(&service.host))
        })
    }

    /// The DestinationRule for a service. A revision without an exact one of its own has its function's.
    pub fn rule(&self, service: &Service) -> Option<&Rule> {
        let find = |host: &str| self.rules.find(host, &service.namespace, &self.caller, &self.root);
        match &service.backing {
            Backing::Revision { function, .. } => match find(&service.host) {
                Some(own) if own.host == service.host => Some(own),
                _ => find(function),
            },
            _ => find(&service.host),
        }
    }

    /// What `reference` comes to.
    pub fn destination(&self, reference: &Reference<'_>) -> Found {
        let port = reference.port.unwrap_or(reference.dialled);
        let absent = |missing| Found {
            clusters: vec![(cluster_name(port, reference.subset.unwrap_or(""), reference.host), 1)],
            missing: Some(missing),
        };
        let Some(service) = self.service(reference.host) else {
            return absent(Missing::Host(self.meant(reference.host)));
        };
        let port = match self.port(service, reference) {
            Ok(port) => port,
            Err(missing) => return absent(missing),
        };
        let Some(subset) = reference.subset else {
            return present(self.whole(service, port));
        };
        let rule = self.rule(service);
        match rule.and_then(|rule| rule.subset(subset)) {
            Some(subset) => match self.part(service, port, subset) {
                parts if parts.is_empty() => absent(Missing::NoRevision),
                parts => present(parts),
            },
            None => {
                let defined = rule.map_or(&[][..], |rule| &rule.subsets);
                absent(Missing::Subset(defined.iter().map(|subset| subset.name.clone()).collect()))
            }
        }
    }

    fn port(&self, service: &Service, reference: &Reference<'_>) -> Result<u16, Missing> {
        let numbers = || service.ports.iter().map(|port| port.number).collect();
        match (reference.port, service.ports.as_slice()) {
            (Some(written), _) if service.port(written).is_some() => Ok(written),
            (Some(written), _) => Err(Missing::Port(written, numbers())),
            (None, [only]) => Ok(only.number),
            (None, _) if service.port(reference.dialled).is_some() => Ok(reference.dialled),
            (None, _) => Err(Missing::AmbiguousPort(numbers())),
        }
    }

    fn whole(&self, service: &Service, port: u16) -> Vec<(String, u64)> {
        match &service.backing {
            Backing::Split { shares, .. } => {
                shares.iter().map(|(host, share)| (cluster_name(port, "", host), *share)).collect()
            }
            _ => vec![(cluster_name(port, "", &service.host), 1)],
        }
    }

    /// A subset of a function is those of its revisions that carry the labels: by their shares of the
    /// traffic, or evenly where none of them has any.
    fn part(&self, service: &Service, port: u16, subset: &Subset) -> Vec<(String, u64)> {
        let Backing::Split { shares, revisions } = &service.backing else {
            return vec![(cluster_name(port, &subset.name, &service.host), 1)];
        };
        let share = |host: &str| shares.iter().find(|(name, _)| name == host).map_or(0, |(_, share)| *share);
        let name = if subset.terms.is_some() { subset.name.as_str() } else { "" };
        let chosen = revisions.iter().filter(|(_, labels)| carries(labels, &subset.labels));
        chosen.map(|(host, _)| (cluster_name(port, name, host), share(host))).collect()
    }

    /// The labels of the revision behind `service`.
    pub fn revision_labels(&self, service: &Service) -> Option<&Labels> {
        let Backing::Revision { function, .. } = &service.backing else { return None };
        let Backing::Split { revisions, .. } = &self.services.get(function)?.backing else { return None };
        revisions.iter().find(|(host, _)| *host == service.host).map(|(_, labels)| labels)
    }

    /// Whether `pattern` covers any service.
    pub fn covers_any(&self, pattern: &str) -> bool {
        let known = || self.services.values().any(|service| names::covers(pattern, &service.host));
        self.services.contains_key(pattern) || (names::is_wildcard(pattern) && known())
    }

    /// The service that `host` is a partial name of, or else one of the same name in another namespace.
    pub fn meant(&self, host: &str) -> Option<String> {
        let known = |host: String| self.services.contains_key(&host).then_some(host);
        let (name, namespace) = match names::service_parts(host) {
            Some((name, _)) => (name, None),
            None => match host.strip_suffix(".svc").unwrap_or(host).split_once('.') {
                Some((name, namespace)) => (name, Some(namespace)),
                None => (host, Some(self.caller.as_str())),
            },
        };
        if let Some(namespace) = namespace {
            return known(names::service_host(name, namespace));
        }
        let same = |service: &&Service| names::service_parts(&service.host).is_some_and(|(n, _)| n == name);
        self.services.values().find(same).map(|service| service.host.clone())
    }
}

fn present(clusters: Vec<(String, u64)>) -> Found {
    Found { clusters, missing: None }
}

/// What a service is called in metrics as long as nothing is known of its workload.
pub(crate) fn identity(host: &str, name: &str, namespace: &str) -> Identity {
    let unknown = || "unknown".to_owned();
    Identity {
        service: host.to_owned(),
        service_name: name.to_owned(),
        service_namespace: namespace.to_owned(),
        workload: unknown(),
        app: unknown(),
        version: unknown(),
        canonical_service: unknown(),
        canonical_revision: "latest".to_owned(),
    }
}

/// Istio's name of an outbound cluster.
pub(crate) fn cluster_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Whether `labels` hold all of `wanted`.
pub(crate) fn carries(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
