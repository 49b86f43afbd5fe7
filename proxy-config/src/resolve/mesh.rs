//! The mesh listener: for each service port the hosts that can be called on it.

use super::names;
use super::registry::{Registry, Service};
use super::routes::{self, Scene, Through};
use super::tables::MeshTable;
use crate::api::istio::VirtualService;
use crate::model::{Bind, Direction, Listener, Route, Table, Tables};
use crate::report::{Level, Problem};
use std::collections::BTreeMap;

/// A VirtualService host that no service has is served on this port alone.
const UNREGISTERED_PORT: u16 = 80;

/// The listener. `virtual_services` are ordered by name and then namespace; the first to claim a host has it.
pub(crate) fn build(
    virtual_services: &[&VirtualService],
    registry: &Registry,
    caller: &str,
    problems: &mut Vec<Problem>,
) -> Listener {
    let claims = claims(virtual_services, problems);
    let mut tables: BTreeMap<u16, MeshTable> = BTreeMap::new();
    // Hosts written out go before the further names of services, which nobody wrote.
    for (host, owner) in &claims {
        if !registry.covers_any(host) {
            let scene = Scene { registry, listener: Through::Mesh, port: UNREGISTERED_PORT };
            let routes = routes::build(owner, &scene, problems);
            let table = tables.entry(UNREGISTERED_PORT).or_default();
            table.claim(format!("{host}:{UNREGISTERED_PORT}"), names::aliases(host, caller), routes);
        }
    }
    for service in registry.services() {
        let owner = owner(&claims, &service.host);
        for port in service.ports.iter().filter(|port| port.http) {
            let scene = Scene { registry, listener: Through::Mesh, port: port.number };
            let routes = routes_of(service, owner, &scene, problems);
            let mut domains = names::aliases(&service.host, caller);
            domains.extend(service.addresses.iter().cloned());
            let name = format!("{}:{}", service.host, port.number);
            tables.entry(port.number).or_default().claim(name, domains, routes);
        }
    }
    let tables: BTreeMap<u16, Table> =
        tables.into_iter().map(|(port, table)| (port, table.finish())).collect();
    Listener {
        name: "mesh".to_owned(),
        direction: Direction::Outbound,
        bind: Bind::Mesh,
        tables: Tables::ByPort(tables),
        origins: Vec::new(),
        tls: crate::model::ListenerTls::Plain,
        guard: None,
        forwarding: crate::model::Forwarding::at(Direction::Outbound),
    }
}

fn routes_of(
    service: &Service,
    owner: Option<&VirtualService>,
    scene: &Scene<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Route> {
    match owner {
        Some(owner) => routes::build(owner, scene, problems),
        None => vec![routes::plain(service, scene)],
    }
}

/// Who speaks for each host: the first of several, which are never merged.
fn claims<'a>(
    virtual_services: &[&'a VirtualService],
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, &'a VirtualService> {
    let mut claims: BTreeMap<String, &VirtualService> = BTreeMap::new();
    for service in virtual_services {
        let namespace = &service.meta.object.namespace;
        if service.http.is_empty() || !routes::bound(&service.gateways, namespace, Through::Mesh) {
            continue;
        }
        for (i, written) in service.hosts.iter().enumerate() {
            let host = names::expand(&written.value, namespace);
            let first = *claims.entry(host).or_insert(service);
            if first.meta.object == service.meta.object {
                continue;
            }
            let message = format!(
                "host {:?} belongs on the mesh to {} ({}:{}); these rules are not used for it",
                written.value,
                first.meta.object,
                first.meta.file.display(),
                first.meta.at.line
            );
            let help = "put the rules into one VirtualService: for calls within the mesh they are never merged, and \
                        the first by name is taken";
            let path = format!("spec.hosts[{i}]");
            let problem = service.meta.problem(Level::Error, "IST0109", path, written.at, message);
            problems.push(problem.with_help(help));
        }
    }
    claims
}

/// The VirtualService for a service: of its very host, else of the narrowest pattern over it.
fn owner<'a>(claims: &BTreeMap<String, &'a VirtualService>, host: &str) -> Option<&'a VirtualService> {
    claims.get(host).copied().or_else(|| {
        // Patterns begin with `*`, which sorts before every letter and digit.
        let patterns = claims.range("*".to_owned()..).take_while(|(pattern, _)| names::is_wildcard(pattern));
        let covering = patterns.filter(|(pattern, _)| names::covers(pattern, host));
        covering.max_by_key(|(pattern, _)| names::specificity(pattern)).map(|(_, owner)| *owner)
    })
}
