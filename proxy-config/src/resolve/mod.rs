//! What the YAML means: objects in, a [`Config`] and every dangling reference out.
//!
//! Resolution is total. What an object refers to and does not exist becomes the name of a cluster that does
//! not exist either, so that only what leads there fails.

mod client_tls;
mod clusters;
mod entries;
mod forwarding;
pub(crate) mod functions;
mod gateways;
mod mesh;
pub(crate) mod names;
mod references;
pub(crate) mod registry;
pub(crate) mod routes;
pub(crate) mod rules;
pub(crate) mod security;
mod servers;
mod services;
mod settings;
pub(crate) mod sidecar;
mod split;
pub(crate) mod tables;
mod terms;
mod unspoken;

use crate::api::mesh::MeshConfig;
use crate::api::{Object, istio, knative, kubernetes};
use crate::model::{Action, Config, Listener, Revision, Route, Tables};
use crate::report::Problem;
use functions::Function;
use gateways::Gateways;
use registry::{Registry, Service};
use rules::Rules;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use crate::load::Options;

/// The objects of the input by kind, each in the order in which it is tried.
#[derive(Default)]
pub(crate) struct Input<'a> {
    pub gateways: Vec<&'a istio::Gateway>,
    /// By name, then namespace: where Istio asks for the oldest, files have no other order.
    pub virtual_services: Vec<&'a istio::VirtualService>,
    pub destination_rules: Vec<&'a istio::DestinationRule>,
    pub service_entries: Vec<&'a istio::ServiceEntry>,
    pub peer_authentications: Vec<&'a istio::PeerAuthentication>,
    pub request_authentications: Vec<&'a istio::RequestAuthentication>,
    pub authorization_policies: Vec<&'a istio::AuthorizationPolicy>,
    /// Objects of those three kinds that have errors and were never good.
    pub suspects: &'a [istio::Suspect],
    pub services: Vec<&'a kubernetes::Service>,
    pub slices: Vec<&'a kubernetes::EndpointSlice>,
    pub secrets: Vec<&'a kubernetes::Secret>,
    pub pods: Vec<&'a kubernetes::Pod>,
    pub workloads: Vec<&'a kubernetes::Workload>,
    pub functions: Vec<&'a knative::Service>,
    pub autoscaler: Option<&'a knative::Autoscaler>,
    pub mesh: Vec<&'a MeshConfig>,
}

impl<'a> Input<'a> {
    /// Sorts objects, which are in path order and then document order, by kind.
    pub fn new(objects: impl IntoIterator<Item = &'a Object>, suspects: &'a [istio::Suspect]) -> Input<'a> {
        let mut input = Input { suspects, ..Input::default() };
        for object in objects {
            match object {
                Object::Gateway(o) => input.gateways.push(o),
                Object::VirtualService(o) => input.virtual_services.push(o),
                Object::DestinationRule(o) => input.destination_rules.push(o),
                Object::ServiceEntry(o) => input.service_entries.push(o),
                Object::PeerAuthentication(o) => input.peer_authentications.push(o),
                Object::RequestAuthentication(o) => input.request_authentications.push(o),
                Object::AuthorizationPolicy(o) => input.authorization_policies.push(o),
                Object::Service(o) => input.services.push(o),
                Object::EndpointSlice(o) => input.slices.push(o),
                Object::Secret(o) => input.secrets.push(o),
                Object::Pod(o) => input.pods.push(o),
                Object::Function(o) => input.functions.push(o),
                Object::Autoscaler(o) => input.autoscaler = Some(o),
                Object::Mesh(o) => input.mesh.push(o),
                Object::Workload(o) => input.workloads.push(o),
                Object::Inert(_) => {}
            }
        }
        let by_name = |service: &&istio::VirtualService| {
            (service.meta.object.name.clone(), service.meta.object.namespace.clone())
        };
        input.virtual_services.sort_by_key(by_name);
        input
    }
}

/// A resolved configuration and what lints need of the way there.
pub(crate) struct Resolved {
    /// The configuration.
    pub config: Config,
    /// Every service.
    pub registry: Registry,
}

/// Resolves. `mesh_file` is the MeshConfig named on the command line.
pub(crate) fn resolve(
    input: &Input<'_>,
    mesh_file: Option<&MeshConfig>,
    options: &Options,
    problems: &mut Vec<Problem>,
) -> Resolved {
    let written = settings::choose(mesh_file, &input.mesh, problems);
    let mesh = settings::build(written);
    let scale = input.autoscaler.map(|autoscaler| autoscaler.defaults.clone()).unwrap_or_default();
    let functions = functions::build(&input.functions, &scale, options, problems);
    let credentials = security::Credentials::new(&input.secrets, &mesh.root_namespace);
    let certified = options.sidecar.is_some();
    let rules = input.destination_rules.iter();
    let rules = Rules::new(rules.map(|rule| terms::rule(rule, &credentials, problems)).collect());
    // A sidecar starts no function: it calls what a Service or ServiceEntry says.
    let services = catalogue(input, if certified { &[] } else { &functions });
    let home = options.sidecar.as_ref().map_or(&options.namespace, |own| &own.workload.namespace);
    let registry = Registry::new(services, rules, home, &mesh.root_namespace);
    references::check(&input.virtual_services, &registry, problems);
    if !certified {
        unspoken::check(&input.destination_rules, &registry, problems);
    }
    let policies = security::Policies::new(input, &mesh.root_namespace, problems);
    let mut guards = security::Guards::new(&policies);
    let caller = client_tls::Caller { mesh: &mesh, certified };
    let mut clusters = clusters::build(&registry, &mut guards, &caller);
    let mut guards = guards.built;
    let outbound = mesh::build(&input.virtual_services, &registry, home, problems);
    let mut listeners = if let Some(own) = &options.sidecar {
        let revisions: Vec<&Revision> =
            functions.iter().flat_map(|function| &function.revisions).map(|(revision, _)| revision).collect();
        let inbound = sidecar::build(own, input, &revisions, &policies);
        // What others ask is asked by their own sidecars.
        clusters.iter_mut().for_each(|cluster| cluster.guard = None);
        clusters.extend(inbound.clusters);
        guards = vec![inbound.guard];
        vec![inbound.listener, outbound]
    } else {
        let from = Gateways {
            gateways: &input.gateways,
            virtual_services: &input.virtual_services,
            functions: &functions,
            registry: &registry,
            domain: &options.domain,
            credentials: &credentials,
        };
        let mut listeners = gateways::build(&from, problems);
        listeners.push(outbound);
        guards.extend(security::guard_listeners(&mut listeners, input, &policies));
        listeners
    };
    let own = options.sidecar.as_ref().map(|own| &own.workload);
    forwarding::fill(&mut listeners, input, written, own);
    let ext_authz = security::providers(written, &input.authorization_policies, &registry, problems);
    let config = Config {
        revisions: if certified { Vec::new() } else { revisions(functions, &listeners) },
        clusters,
        listeners,
        guards,
        ext_authz,
        workload: options.sidecar.as_ref().map(|own| own.workload.clone()),
        mesh,
    };
    Resolved { config, registry }
}

/// Every host once: a function goes before a Kubernetes Service, and that before a ServiceEntry. Ports that
/// only a later one has are added, and a later one's endpoints where the first has none at a port.
fn catalogue(input: &Input<'_>, functions: &[Function<'_>]) -> BTreeMap<String, Service> {
    let found = services::Found::new(&input.slices, &input.pods, &input.workloads);
    let mut all = functions::services(functions);
    all.extend(services::build(&input.services, &found));
    all.extend(entries::build(&input.service_entries, &input.pods));
    let mut catalogue: BTreeMap<String, Service> = BTreeMap::new();
    for service in all {
        match catalogue.get_mut(&service.host) {
            None => {
                catalogue.insert(service.host.clone(), service);
            }
            Some(first) if matches!(first.backing, registry::Backing::Endpoints) => {
                for port in service.ports {
                    match first.ports.iter_mut().find(|own| own.number == port.number) {
                        None => first.ports.push(port),
                        Some(own) if own.source.is_empty() => *own = port,
                        Some(_) => {}
                    }
                }
                // Whoever else may be behind the host is asked for too.
                first.behind.labels.extend(service.behind.labels);
                first.behind.names.extend(service.behind.names);
                first.behind.outside &= service.behind.outside;
                first.behind.accounts.extend(service.behind.accounts);
                first.behind.certified.extend(service.behind.certified);
                first.ports.sort_by_key(|port| port.number);
            }
            Some(_) => {}
        }
    }
    services::join_aliases(&input.services, &mut catalogue);
    catalogue
}

/// All revisions; one that a VirtualService leads to counts as reachable, whatever the traffic says.
fn revisions(functions: Vec<Function<'_>>, listeners: &[Listener]) -> Vec<Arc<Revision>> {
    let mut led_to = BTreeSet::new();
    for route in listeners.iter().flat_map(all_routes) {
        if let (true, Action::Forward(forward)) = (routes::is_written(&route.origin), &route.action) {
            let hosts = forward.destinations.iter().filter_map(|d| d.cluster.rsplit('|').next());
            led_to.extend(hosts.map(str::to_owned));
        }
    }
    let all = functions.into_iter().flat_map(|function| function.revisions);
    all.map(|(mut revision, _)| {
        let host = names::service_host(&revision.name, &revision.namespace);
        revision.reachable |= led_to.contains(&host);
        Arc::new(revision)
    })
    .collect()
}

/// Every route of a listener.
pub(crate) fn all_routes(listener: &Listener) -> impl Iterator<Item = &Route> {
    let tables: Vec<_> = match &listener.tables {
        Tables::One(table) => vec![table],
        Tables::ByPort(tables) => tables.values().collect(),
    };
    tables.into_iter().flat_map(|table| &table.hosts).flat_map(|host| &host.routes)
}
