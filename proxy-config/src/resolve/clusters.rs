//! Clusters: one for each port of each service, and one for each subset of it.

use super::client_tls::{Callee, Caller};
use super::registry::{self, Backing, Labels, Port, Registry, Service, Source};
use super::rules::{self, Rule, Subset};
use super::security::Guards;
use crate::model::{Cluster, Endpoints, Identity, Protocol};
use std::sync::Arc;

/// Every cluster of every service, in order of host. `caller`: who speaks to them.
pub(crate) fn build(registry: &Registry, guards: &mut Guards<'_, '_>, caller: &Caller<'_>) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for service in registry.services() {
        let rule = registry.rule(service);
        for port in &service.ports {
            match &service.backing {
                Backing::Endpoints => of_endpoints(service, port, rule, (guards, caller), &mut clusters),
                Backing::Revision { key, .. } => {
                    let guard = guards.of_revision(service, key, registry.revision_labels(service));
                    let before = clusters.len();
                    of_revision(registry, service, port, key, rule, &mut clusters);
                    clusters[before..].iter_mut().for_each(|cluster| cluster.guard.clone_from(&guard));
                }
                Backing::Split { .. } => {}
            }
        }
    }
    clusters
}

fn of_endpoints(
    service: &Service,
    port: &Port,
    rule: Option<&Rule>,
    (guards, caller): (&mut Guards<'_, '_>, &Caller<'_>),
    clusters: &mut Vec<Cluster>,
) {
    let subsets = rule.iter().flat_map(|rule| &rule.subsets).map(Some);
    for subset in std::iter::once(None).chain(subsets) {
        let wanted = subset.map(|subset| &subset.labels);
        let mut cluster = cluster(service, port, subset, rule, select(&port.source, wanted));
        cluster.guard = guards.of_endpoints(service, &port.source, wanted, &cluster.name);
        let accepts = cluster.guard.as_deref().and_then(|name| guards.mtls(name)).unwrap_or_default();
        let (endpoints, port) = (&cluster.endpoints, port.number);
        cluster.tls = caller.tls(&Callee { service, port, subset, rule, endpoints, accepts: &accepts });
        clusters.push(cluster);
    }
}

/// A revision is a cluster by itself, and once more for each subset with terms of its own that selects it.
fn of_revision(
    registry: &Registry,
    service: &Service,
    port: &Port,
    key: &str,
    rule: Option<&Rule>,
    clusters: &mut Vec<Cluster>,
) {
    let endpoints = || Endpoints::Revision(key.to_owned());
    clusters.push(cluster(service, port, None, rule, endpoints()));
    let own_labels = registry.revision_labels(service);
    for subset in rule.iter().flat_map(|rule| &rule.subsets).filter(|subset| subset.terms.is_some()) {
        if own_labels.is_some_and(|labels| registry::carries(labels, &subset.labels)) {
            clusters.push(cluster(service, port, Some(subset), rule, endpoints()));
        }
    }
}

fn cluster(
    service: &Service,
    port: &Port,
    subset: Option<&Subset>,
    rule: Option<&Rule>,
    endpoints: Endpoints,
) -> Cluster {
    let name = registry::cluster_name(port.number, subset.map_or("", |subset| &subset.name), &service.host);
    let base = rule.and_then(|rule| rule.terms.as_ref());
    let own = subset.and_then(|subset| subset.terms.as_ref());
    let (policy, upgrade) = rules::policy(base, own, port.number);
    let protocol = if upgrade && port.http { Protocol::Http2 } else { port.protocol };
    let identity = Arc::new(identity(service, port, subset));
    Cluster { name, identity, protocol, endpoints, policy, concurrency: 0, tls: None, guard: None }
}

fn select(source: &Source, wanted: Option<&Labels>) -> Endpoints {
    fn chosen<T: Clone>(all: &[(T, Labels)], wanted: Option<&Labels>) -> Vec<T> {
        let fits = |labels: &Labels| wanted.is_none_or(|wanted| registry::carries(labels, wanted));
        all.iter().filter(|(_, labels)| fits(labels)).map(|(endpoint, _)| endpoint.clone()).collect()
    }
    match source {
        Source::Static(all) => Endpoints::Static(chosen(all, wanted)),
        Source::Dns(all) => Endpoints::Dns(chosen(all, wanted)),
    }
}

/// The service's labels, and of its endpoints' those that all of the selected ones share.
fn identity(service: &Service, port: &Port, subset: Option<&Subset>) -> Identity {
    let mut identity = service.identity.clone();
    if !matches!(service.backing, Backing::Endpoints) {
        return identity;
    }
    let wanted = subset.map(|subset| &subset.labels);
    let all: Vec<&Labels> = match &port.source {
        Source::Static(all) => all.iter().map(|(_, labels)| labels).collect(),
        Source::Dns(all) => all.iter().map(|(_, labels)| labels).collect(),
    };
    let chosen: Vec<&Labels> = all
        .into_iter()
        .filter(|labels| wanted.is_none_or(|wanted| registry::carries(labels, wanted)))
        .collect();
    let shared = |key: &str| {
        let first = chosen.first().and_then(|labels| labels.get(key));
        let first = first.filter(|value| chosen.iter().all(|labels| labels.get(key) == Some(value)));
        first.or_else(|| wanted.and_then(|wanted| wanted.get(key))).cloned()
    };
    if let Some(app) = shared("app") {
        identity.app = app;
    }
    if let Some(version) = shared("version") {
        identity.version = version;
    }
    let named = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    if let Some(name) = named.iter().find_map(|key| shared(key)) {
        identity.canonical_service = name;
    }
    let revised = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    if let Some(revision) = revised.iter().find_map(|key| shared(key)) {
        identity.canonical_revision = revision;
    }
    identity
}
