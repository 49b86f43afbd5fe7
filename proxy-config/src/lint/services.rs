//! Lints on Services and ServiceEntries: those that nothing answers for, or that another has taken the place of.

use crate::api::istio::{Resolution, ServiceEntry};
use crate::api::kubernetes::{EndpointSlice, Service, Workload};
use crate::report::{Level, Problem};
use crate::resolve::registry::{self, Backing, Registry};
use crate::resolve::{Input, names};
use std::collections::{BTreeMap, HashMap};

/// EndpointSlices by namespace and Service.
type Slices<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// Workloads by namespace and each label of their Pods.
type Workloads<'a> = HashMap<(&'a str, &'a str, &'a str), Vec<&'a Workload>>;

pub(super) fn check(input: &Input<'_>, registry: &Registry, problems: &mut Vec<Problem>) {
    let mut slices = Slices::new();
    for slice in &input.slices {
        if let Some(service) = &slice.service {
            slices.entry((&slice.meta.object.namespace, service)).or_default().push(slice);
        }
    }
    let mut workloads = Workloads::new();
    for workload in &input.workloads {
        for (key, value) in &workload.template_labels {
            let label = (workload.meta.object.namespace.as_str(), key.as_str(), value.as_str());
            workloads.entry(label).or_default().push(workload);
        }
    }
    for service in input.services.iter().filter(|service| service.external_name.is_none()) {
        let object = &service.meta.object;
        match slices.get(&(object.namespace.as_str(), object.name.as_str())) {
            None => problems.extend(without_endpoints(service, &workloads, registry)),
            Some(slices) => problems.extend(ports_not_offered(service, slices, registry)),
        }
    }
    entries(input, registry, problems);
}

fn entries(input: &Input<'_>, registry: &Registry, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<(&str, u16), &ServiceEntry> = BTreeMap::new();
    for entry in &input.service_entries {
        problems.extend(without_addresses(entry, registry));
        for (i, host) in entry.hosts.iter().enumerate() {
            let mut ports = entry.ports.iter().map(|port| port.number.value);
            let taken = ports.clone().find_map(|port| first.get(&(host.value.as_str(), port)));
            if let Some(earlier) = taken {
                let message = format!(
                    "{} ({}:{}) has this host with the same port and its endpoints are taken; these are not used",
                    earlier.meta.object,
                    earlier.meta.file.display(),
                    earlier.meta.at.line
                );
                let path = format!("spec.hosts[{i}]");
                let problem = entry.meta.problem(Level::Warning, "SC045", path, host.at, message);
                problems.push(problem.with_help("put the endpoints into one ServiceEntry"));
            }
            ports.by_ref().for_each(|port| {
                first.entry((&host.value, port)).or_insert(entry);
            });
        }
    }
}

/// A ServiceEntry of addresses that has none.
fn without_addresses(entry: &ServiceEntry, registry: &Registry) -> Option<Problem> {
    let empty = |host: &str| {
        let found = registry.service(host).filter(|found| found.origin == entry.meta.object);
        found.is_some_and(|found| found.ports.iter().all(|port| port.source.is_empty()))
    };
    let host = entry.hosts.iter().find(|host| empty(&host.value))?;
    if entry.resolution.value != Resolution::Static || entry.ports.is_empty() {
        return None;
    }
    let (message, help) = if entry.workload_selector.is_empty() {
        ("no endpoint is written: requests answer 503", "add `endpoints: [{address: …}]`")
    } else {
        (
            "no Pod with an address carries the labels of its selector: requests answer 503",
            "add the Pods with their `status.podIP`, or write `endpoints`",
        )
    };
    let problem = entry.meta.problem(Level::Warning, "SC044", "spec", host.at, message.to_owned());
    Some(problem.with_help(help))
}

/// What the registry has under the Service's own name, if that is this Service and has endpoints.
fn found<'r>(service: &Service, registry: &'r Registry) -> Option<&'r registry::Service> {
    let object = &service.meta.object;
    let found = registry.service(&names::service_host(&object.name, &object.namespace))?;
    (found.origin == *object && matches!(found.backing, Backing::Endpoints)).then_some(found)
}

fn without_endpoints(service: &Service, workloads: &Workloads<'_>, registry: &Registry) -> Option<Problem> {
    let found = found(service, registry)?;
    if found.ports.is_empty() || found.ports.iter().any(|port| !port.source.is_empty()) {
        return None;
    }
    let wanted = &service.selector;
    let namespace = service.meta.object.namespace.as_str();
    let candidates = wanted
        .iter()
        .filter_map(|(key, value)| workloads.get(&(namespace, key.as_str(), value.as_str())))
        .min_by_key(|candidates| candidates.len());
    let makes = |workload: &&&Workload| wanted.iter().all(|label| workload.template_labels.contains(label));
    let workload = candidates.into_iter().flatten().find(makes);
    let why = match workload {
        Some(workload) => format!("the Pods of {} are not here", workload.meta.object),
        None if wanted.is_empty() => "it has no selector and no EndpointSlice".to_owned(),
        None => "no EndpointSlice is its own and no Pod with an address carries its labels".to_owned(),
    };
    let name = &service.meta.object.name;
    let message = format!("no endpoint is known, requests answer 503: {why}");
    let help = format!(
        "add an EndpointSlice labelled `kubernetes.io/service-name: {name}`, or a ServiceEntry for {:?}",
        found.host
    );
    let meta = &service.meta;
    Some(meta.problem(Level::Warning, "SC044", "metadata.name", meta.name_at, message).with_help(help))
}

/// A slice names ports as the Service does; one under another name is not found.
fn ports_not_offered(service: &Service, slices: &[&EndpointSlice], registry: &Registry) -> Vec<Problem> {
    let ready = slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.ready);
    let Some(found) = found(service, registry).filter(|_| ready) else { return Vec::new() };
    let mut problems = Vec::new();
    for (i, port) in service.ports.iter().enumerate() {
        let missing = found.port(port.port.value).is_some_and(|port| port.source.is_empty());
        if !missing || !port.tcp {
            continue;
        }
        let message = format!(
            "no EndpointSlice of this Service offers port {:?}: requests to it answer 503",
            port.name.as_deref().unwrap_or_default()
        );
        let path = format!("spec.ports[{i}]");
        let problem = service.meta.problem(Level::Warning, "SC044", path, port.port.at, message);
        problems.push(problem.with_help("give the port of the EndpointSlice this name"));
    }
    problems
}
