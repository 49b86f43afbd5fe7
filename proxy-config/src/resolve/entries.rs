//! ServiceEntries: hosts written by hand, with addresses or names to look up.

use super::registry::{self, Backing, Behind, Labels, Port, Service, Source};
use super::services;
use crate::api::istio::{EntryPort, Resolution, ServiceEntry, WorkloadAddress};
use crate::api::kubernetes::Pod;
use crate::model::{DnsTarget, Endpoint};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Every host of every entry.
pub(crate) fn build(entries: &[&ServiceEntry], pods: &[&Pod]) -> Vec<Service> {
    entries
        .iter()
        .flat_map(|entry| entry.hosts.iter().map(move |host| one(entry, &host.value, pods)))
        .collect()
}

fn one(entry: &ServiceEntry, host: &str, pods: &[&Pod]) -> Service {
    let namespace = &entry.meta.object.namespace;
    let mut ports: Vec<Port> = entry.ports.iter().map(|port| self::port(entry, host, port, pods)).collect();
    ports.sort_by_key(|port| port.number);
    Service {
        host: host.to_owned(),
        namespace: namespace.clone(),
        ports,
        backing: Backing::Endpoints,
        addresses: Vec::new(),
        origin: entry.meta.object.clone(),
        identity: registry::identity(host, host, namespace),
        behind: behind(entry, pods),
    }
}

/// An entry says who is behind it on its endpoints, or else by its own labels. Outside the mesh is what says
/// so; what says nothing and has names to look up is taken for something outside too.
fn behind(entry: &ServiceEntry, pods: &[&Pod]) -> Behind {
    let labelled = entry.endpoints.iter().any(|endpoint| !endpoint.labels.is_empty());
    let selects = !entry.workload_selector.is_empty();
    let outside = match entry.external {
        Some(external) => external,
        None => entry.resolution.value != Resolution::Static && !labelled && !selects,
    };
    let own = if selects { labels(&entry.workload_selector) } else { entry.meta.labels.clone() };
    Behind {
        namespace: entry.meta.object.namespace.clone(),
        labels: vec![own],
        names: vec![("ServiceEntry", entry.meta.object.name.clone())],
        outside,
        accounts: accounts(entry, pods),
        certified: entry
            .names
            .iter()
            .map(|name| name.value.trim_start_matches("spiffe://").to_owned())
            .collect(),
    }
}

fn accounts(entry: &ServiceEntry, pods: &[&Pod]) -> BTreeSet<String> {
    let namespace = &entry.meta.object.namespace;
    let wanted = labels(&entry.workload_selector);
    let written = entry.endpoints.iter().filter_map(|endpoint| endpoint.service_account.clone());
    let selected = pods.iter().filter(|pod| {
        !wanted.is_empty()
            && pod.meta.object.namespace == *namespace
            && registry::carries(&pod.meta.labels, &wanted)
    });
    let all = written.chain(selected.map(|pod| pod.service_account.clone()));
    all.map(|account| format!("{namespace}/{account}")).collect()
}

fn port(entry: &ServiceEntry, host: &str, port: &EntryPort, pods: &[&Pod]) -> Port {
    let speech = services::speech_of(&port.protocol).unwrap_or_else(|| services::speech(None, &port.name));
    let target = port.target_port.unwrap_or(port.number.value);
    let source = match entry.resolution.value {
        Resolution::Static => Source::Static(addresses(entry, port, target, pods)),
        Resolution::Dns | Resolution::DnsRoundRobin => lookups(entry, host, port, target),
        // Called through a proxy that is told the name, "the address dialled" is the one the name has.
        Resolution::None | Resolution::DynamicDns => own_name(host, target),
    };
    Port { number: port.number.value, http: speech.http, protocol: speech.protocol, source }
}

/// Known addresses: those written, or those of the Pods selected.
fn addresses(entry: &ServiceEntry, port: &EntryPort, target: u16, pods: &[&Pod]) -> Vec<(Endpoint, Labels)> {
    let written = entry.endpoints.iter().filter_map(|endpoint| {
        let ip: IpAddr = endpoint.address.value.parse().ok()?;
        let address = SocketAddr::new(ip, port_of(endpoint, port, target));
        let labels = labels(&endpoint.labels);
        Some((Endpoint { address, weight: weight(endpoint), mesh_tls: registry::in_mesh(&labels) }, labels))
    });
    let wanted = labels(&entry.workload_selector);
    let selected = pods.iter().filter_map(|pod| {
        let here = pod.meta.object.namespace == entry.meta.object.namespace;
        if wanted.is_empty() || !here || !registry::carries(&pod.meta.labels, &wanted) {
            return None;
        }
        let ip: IpAddr = pod.ip.as_deref()?.parse().ok()?;
        Some((
            Endpoint {
                address: SocketAddr::new(ip, target),
                weight: 1,
                mesh_tls: registry::in_mesh(&pod.meta.labels),
            },
            pod.meta.labels.clone(),
        ))
    });
    written.chain(selected).collect()
}

/// Names to look up. Where all of them are addresses nothing need be looked up.
fn lookups(entry: &ServiceEntry, host: &str, port: &EntryPort, target: u16) -> Source {
    if entry.endpoints.is_empty() {
        return own_name(host, target);
    }
    if entry.endpoints.iter().all(|endpoint| endpoint.address.value.parse::<IpAddr>().is_ok()) {
        return Source::Static(addresses(entry, port, target, &[]));
    }
    let targets = entry.endpoints.iter().filter(|endpoint| !is_socket(endpoint)).map(|endpoint| {
        let host = endpoint.address.value.trim_end_matches('.').to_ascii_lowercase();
        let port = port_of(endpoint, port, target);
        (DnsTarget { host, port, weight: weight(endpoint) }, labels(&endpoint.labels))
    });
    Source::Dns(targets.collect())
}

/// The host itself, looked up; a pattern has no address.
fn own_name(host: &str, port: u16) -> Source {
    if super::names::is_wildcard(host) {
        return Source::Static(Vec::new());
    }
    Source::Dns(vec![(DnsTarget { host: host.to_owned(), port, weight: 1 }, Labels::new())])
}

fn port_of(endpoint: &WorkloadAddress, port: &EntryPort, target: u16) -> u16 {
    let own = endpoint.ports.iter().find(|(name, _)| *name == port.name);
    own.map_or(target, |(_, number)| *number)
}

fn weight(endpoint: &WorkloadAddress) -> u32 {
    endpoint.weight.filter(|weight| *weight > 0).unwrap_or(1)
}

fn labels(written: &[(String, String)]) -> Labels {
    written.iter().cloned().collect()
}

fn is_socket(endpoint: &WorkloadAddress) -> bool {
    endpoint.address.value.starts_with("unix:")
}
