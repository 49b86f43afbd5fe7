//! One workload's side: what stands in front of it, and what it may be reached by.
//!
//! No gateway and no function is played here; what a sidecar needs and does not have closes it.

use super::registry;
use super::security::{Policies, Subject};
use super::{Input, services};
use crate::load::Sidecar;
use crate::model::{
    Action, Bind, Cluster, Config, Direction, Endpoint, Endpoints, Forward, Forwarding, Guard, HeaderOps,
    Listener, ListenerTls, Match, Mtls, MtlsPolicy, ObjectRef, OwnPort, Policy, Protocol, Retry, Revision,
    Rewrite, Route, StringMatch, Table, Tables, VirtualHost, WeightedDestination,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// What is in front of the workload: its listener, its guard, and a cluster for each port of the program.
pub(crate) struct Inbound {
    pub listener: Listener,
    pub guard: Guard,
    pub clusters: Vec<Cluster>,
}

/// Builds it. `revisions` are those of the functions in the input, of which the workload may be one.
pub(crate) fn build(
    sidecar: &Sidecar,
    input: &Input<'_>,
    revisions: &[&Revision],
    policies: &Policies<'_>,
) -> Inbound {
    let workload = &sidecar.workload;
    let mine = |revision: &&&Revision| {
        let label = workload.labels.get("serving.knative.dev/revision");
        revision.namespace == workload.namespace && label == Some(&revision.name)
    };
    let revision = revisions.iter().find(mine).copied();
    let guard = guard(sidecar, input, policies);
    let first = sidecar.apps.first().map_or(0, SocketAddr::port);
    let mut clusters = Vec::new();
    let mut routes = Vec::new();
    let mut own_ports = Vec::new();
    for app in &sidecar.apps {
        let own = cluster(sidecar, *app, input, revision);
        let dialled = dialled(sidecar, app.port(), input);
        // A request says by its authority's port which of several is meant; else the first is.
        if app.port() != first {
            let pattern = dialled.iter().map(u16::to_string).collect::<Vec<_>>().join("|");
            let authority = Some(StringMatch::Regex(format!(".*:({pattern})")));
            routes.push(route(&own.name, Match { authority, ..Match::default() }, revision));
        }
        let opaque = revision.is_none() && !is_http(sidecar, app.port(), input);
        own_ports.push(OwnPort { port: app.port(), dialled, cluster: own.name.clone(), opaque });
        clusters.push(own);
    }
    routes.extend(clusters.first().map(|cluster| route(&cluster.name, Match::default(), revision)));
    let host = VirtualHost { name: format!("inbound|http|{first}"), domains: vec!["*".to_owned()], routes };
    let listener = Listener {
        name: format!("inbound:{first}"),
        direction: Direction::Inbound,
        bind: Bind::Address(sidecar.inbound),
        tables: Tables::One(Table { hosts: vec![host] }),
        origins: Vec::new(),
        tls: ListenerTls::Mesh(own_ports),
        guard: Some(guard.name.clone()),
        forwarding: Forwarding::at(Direction::Inbound),
    };
    Inbound { listener, guard, clusters }
}

fn guard(sidecar: &Sidecar, input: &Input<'_>, policies: &Policies<'_>) -> Guard {
    let workload = &sidecar.workload;
    let name = format!("{}/{}", workload.namespace, workload.name);
    let selecting = selecting(sidecar, input);
    let subject = Subject {
        namespaces: vec![&workload.namespace],
        near: Vec::new(),
        labels: vec![&workload.labels],
        targets: selecting
            .iter()
            .map(|service| ("Service", workload.namespace.as_str(), service.meta.object.name.as_str()))
            .collect(),
    };
    let plain = Guard { name: name.clone(), namespace: workload.namespace.clone(), ..Guard::default() };
    policies.guard(&name, &subject).unwrap_or(plain)
}

/// The Services that the workload stands behind.
fn selecting<'a>(sidecar: &Sidecar, input: &Input<'a>) -> Vec<&'a crate::api::kubernetes::Service> {
    let workload = &sidecar.workload;
    let selects = |service: &&&crate::api::kubernetes::Service| {
        let selector = service.selector.iter().cloned().collect();
        service.meta.object.namespace == workload.namespace
            && !service.selector.is_empty()
            && registry::carries(&workload.labels, &selector)
    };
    input.services.iter().filter(selects).copied().collect()
}

/// The ports by which callers mean `app`: its own, and those of Services that lead there.
fn dialled(sidecar: &Sidecar, app: u16, input: &Input<'_>) -> BTreeSet<u16> {
    let services = selecting(sidecar, input);
    let ports = services.iter().flat_map(|service| &service.ports);
    let leading = ports.filter(|port| services::number(port) == Some(app)).map(|port| port.port.value);
    leading.chain([app]).collect()
}

/// Whether a Service that leads to `app` says in words that HTTP is spoken there.
fn is_http(sidecar: &Sidecar, app: u16, input: &Input<'_>) -> bool {
    let services = selecting(sidecar, input);
    let mut leading = services.iter().flat_map(|service| &service.ports);
    leading.any(|port| {
        services::number(port) == Some(app)
            && services::declares_http(port.app_protocol.as_deref(), port.name.as_deref().unwrap_or_default())
    })
}

fn cluster(sidecar: &Sidecar, app: SocketAddr, input: &Input<'_>, revision: Option<&Revision>) -> Cluster {
    let workload = &sidecar.workload;
    let services = selecting(sidecar, input);
    let speech = services.iter().flat_map(|service| &service.ports).find_map(|port| {
        (services::number(port) == Some(app.port())).then(|| {
            services::speech(port.app_protocol.as_deref(), port.name.as_deref().unwrap_or_default()).protocol
        })
    });
    let service = services.first().map_or(workload.name.as_str(), |s| s.meta.object.name.as_str());
    let host = super::names::service_host(service, &workload.namespace);
    let mut identity = registry::identity(&host, service, &workload.namespace);
    identity.workload.clone_from(&workload.name);
    let label = |names: &[&str]| names.iter().find_map(|name| workload.labels.get(*name)).cloned();
    identity.app = label(&["app"]).unwrap_or(identity.app);
    identity.version = label(&["version"]).unwrap_or(identity.version);
    let named = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    identity.canonical_service = label(&named).unwrap_or_else(|| workload.name.clone());
    let revised = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    identity.canonical_revision = label(&revised).unwrap_or(identity.canonical_revision);
    Cluster {
        name: format!("inbound|{}||", app.port()),
        identity: Arc::new(identity),
        protocol: revision.map(|r| r.protocol).or(speech).unwrap_or(Protocol::Http1),
        endpoints: Endpoints::Static(vec![Endpoint { address: app, weight: 1, mesh_tls: false }]),
        policy: Policy::default(),
        concurrency: revision.map_or(0, |revision| revision.concurrency),
        tls: None,
        guard: None,
    }
}

fn route(cluster: &str, matches: Match, revision: Option<&Revision>) -> Route {
    let destination = WeightedDestination {
        cluster: cluster.to_owned(),
        weight: 1,
        headers: HeaderOps::default(),
        written: cluster.to_owned(),
    };
    Route {
        name: "default".to_owned(),
        matches,
        action: Action::Forward(Forward {
            destinations: vec![destination],
            timeout: revision.map(|revision| revision.timeout),
            retry: Retry::off(),
            rewrite: Rewrite::default(),
            headers: HeaderOps::default(),
        }),
        origin: ObjectRef::default(),
    }
}

/// Why a sidecar must not serve: policies of its workload that have errors and were never good.
pub(crate) fn blockers(config: &Config) -> Vec<String> {
    let refused = config.guards.iter().flat_map(|guard| &guard.quarantined);
    refused.map(|object| format!("{object} has errors and was never good")).collect()
}

/// What is not known may ask for anything: every request is refused, and plaintext too.
pub(crate) fn close(config: &mut Config, reason: &str) {
    for guard in &mut config.guards {
        guard.mtls = MtlsPolicy { mode: Mtls::Strict, ports: Default::default() };
        let name = reason.to_owned();
        let object = ObjectRef { kind: "configuration".to_owned(), name, ..ObjectRef::default() };
        guard.quarantined.push(object);
    }
}
