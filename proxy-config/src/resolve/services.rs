//! Kubernetes Services and the EndpointSlices and Pods behind them.

use super::names;
use super::registry::{self, Backing, Behind, Labels, Port, Service, Source};
use crate::api::kubernetes::{
    self, EndpointSlice, Pod, ServicePort, SliceEndpoint, SlicePort, TargetPort, Workload,
};
use crate::model::{DnsTarget, Endpoint, Protocol};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// How a port is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speech {
    /// HTTP, or nobody says otherwise.
    pub http: bool,
    /// The version.
    pub protocol: Protocol,
}

const HTTP1: Speech = Speech { http: true, protocol: Protocol::Http1 };
const HTTP2: Speech = Speech { http: true, protocol: Protocol::Http2 };
const OPAQUE: Speech = Speech { http: false, protocol: Protocol::Http1 };

/// By one protocol word: `grpc`, `kubernetes.io/h2c`…; `None`: an unknown word.
pub(crate) fn speech_of(word: &str) -> Option<Speech> {
    Some(match word.to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => HTTP1,
        "http2" | "grpc" | "grpc-web" | "h2c" | "kubernetes.io/h2c" => HTTP2,
        "https" | "tls" | "tcp" | "udp" | "mongo" | "mysql" | "redis" | "kubernetes.io/wss" => OPAQUE,
        _ => return None,
    })
}

/// Whether `appProtocol`, or else the port's name, says HTTP in words.
pub(crate) fn declares_http(app_protocol: Option<&str>, name: &str) -> bool {
    let word = name.split('-').next().unwrap_or_default();
    app_protocol.and_then(speech_of).or_else(|| speech_of(word)).is_some_and(|speech| speech.http)
}

/// By `appProtocol`, else by the port's name up to the first `-`, else HTTP/1.1.
pub(crate) fn speech(app_protocol: Option<&str>, name: &str) -> Speech {
    if let Some(known) = app_protocol.and_then(speech_of) {
        return known;
    }
    let name = name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return HTTP2;
    }
    let prefix = name.split('-').next().unwrap_or_default();
    speech_of(prefix).unwrap_or(HTTP1)
}

/// The number that a Service's port has at its Pods, where it is not a name.
pub(crate) fn number(port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port.value),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(_)) => None,
    }
}

/// Where endpoints are looked for.
pub(crate) struct Found<'a> {
    /// All EndpointSlices, by namespace and Service.
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    /// All Pods by namespace and name.
    pods: BTreeMap<(&'a str, &'a str), &'a Pod>,
    /// All Pods by address.
    addresses: BTreeMap<&'a str, &'a Pod>,
    /// All Pods by namespace and each of their labels.
    labelled: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Pod>>,
    /// Labels of the Pods that Deployments and their like make, by namespace.
    templates: BTreeMap<&'a str, Vec<Labels>>,
}

impl<'a> Found<'a> {
    /// Indexes what the input holds.
    pub fn new(slices: &[&'a EndpointSlice], pods: &[&'a Pod], workloads: &[&'a Workload]) -> Found<'a> {
        let mut found = Found {
            slices: BTreeMap::new(),
            pods: BTreeMap::new(),
            addresses: BTreeMap::new(),
            labelled: HashMap::new(),
            templates: BTreeMap::new(),
        };
        for workload in workloads {
            let labels = workload.template_labels.iter().cloned().collect();
            found.templates.entry(&workload.meta.object.namespace).or_default().push(labels);
        }
        for slice in slices {
            if let Some(service) = &slice.service {
                let key = (slice.meta.object.namespace.as_str(), service.as_str());
                found.slices.entry(key).or_default().push(slice);
            }
        }
        for pod in pods {
            found.pods.insert((&pod.meta.object.namespace, &pod.meta.object.name), pod);
            if let Some(ip) = &pod.ip {
                found.addresses.insert(ip, pod);
            }
            for (key, value) in &pod.meta.labels {
                let label = (pod.meta.object.namespace.as_str(), key.as_str(), value.as_str());
                found.labelled.entry(label).or_default().push(pod);
            }
        }
        found
    }

    fn pod(&self, namespace: &str, endpoint: &SliceEndpoint, address: &str) -> Option<&'a Pod> {
        let by_name = endpoint.pod.as_deref().and_then(|pod| self.pods.get(&(namespace, pod)));
        by_name.or_else(|| self.addresses.get(address)).copied()
    }

    /// The service accounts of the Pods behind a Service.
    fn accounts(&self, service: &kubernetes::Service) -> BTreeSet<String> {
        let object = &service.meta.object;
        let key = (object.namespace.as_str(), object.name.as_str());
        let pods: Vec<&Pod> = match self.slices.get(&key) {
            None => self.carrying(service),
            Some(slices) => {
                let all = slices.iter().flat_map(|slice| &slice.endpoints);
                let addressed = all.flat_map(|e| e.addresses.iter().map(move |address| (e, address)));
                addressed.filter_map(|(e, address)| self.pod(&object.namespace, e, &address.value)).collect()
            }
        };
        pods.into_iter().map(|pod| format!("{}/{}", object.namespace, pod.service_account)).collect()
    }

    fn endpoints(&self, service: &kubernetes::Service, port: &ServicePort) -> Vec<(Endpoint, Labels)> {
        let object = &service.meta.object;
        let key = (object.namespace.as_str(), object.name.as_str());
        let Some(slices) = self.slices.get(&key) else { return self.selected(service, port) };
        let mut endpoints: Vec<(Endpoint, Labels)> = Vec::new();
        for slice in slices {
            let Some(number) = slice_port(slice, service, port) else { continue };
            let ready = slice.endpoints.iter().filter(|e| e.ready || service.publish_not_ready);
            for (endpoint, address) in ready.flat_map(|e| e.addresses.iter().map(move |address| (e, address)))
            {
                let Ok(ip) = address.value.parse::<IpAddr>() else { continue };
                let address_at = SocketAddr::new(ip, number);
                if endpoints.iter().all(|(other, _)| other.address != address_at) {
                    let pod = self.pod(&object.namespace, endpoint, &address.value);
                    let labels = pod.map(|pod| pod.meta.labels.clone()).unwrap_or_default();
                    let mesh_tls = registry::in_mesh(&labels);
                    endpoints.push((Endpoint { address: address_at, weight: 1, mesh_tls }, labels));
                }
            }
        }
        endpoints
    }

    /// Who is behind a Service, as far as its endpoints do not tell: what carries its selector.
    fn behind(&self, service: &kubernetes::Service) -> Behind {
        let object = &service.meta.object;
        let selector: Labels = service.selector.iter().cloned().collect();
        let mut labels = Vec::new();
        if selector.is_empty() {
            labels.push(service.meta.labels.clone());
        } else {
            let made = self.templates.get(object.namespace.as_str()).map_or(&[][..], Vec::as_slice);
            labels.extend(made.iter().filter(|made| registry::carries(made, &selector)).cloned());
            labels.push(selector);
        }
        let names = vec![("Service", object.name.clone())];
        Behind {
            namespace: object.namespace.clone(),
            labels,
            names,
            outside: service.external_name.is_some(),
            accounts: self.accounts(service),
            certified: Vec::new(),
        }
    }

    /// The addresses of the Pods that a Service without EndpointSlices selects: what a cluster would write
    /// into its slices.
    fn selected(&self, service: &kubernetes::Service, port: &ServicePort) -> Vec<(Endpoint, Labels)> {
        self.carrying(service)
            .into_iter()
            .filter(|pod| pod.ready || service.publish_not_ready)
            .filter_map(|pod| {
                let ip: IpAddr = pod.ip.as_deref()?.parse().ok()?;
                let number = match &port.target_port {
                    None => port.port.value,
                    Some(TargetPort::Number(number)) => *number,
                    Some(TargetPort::Name(name)) => pod.ports.iter().find(|p| p.name == *name)?.port,
                };
                let mesh_tls = registry::in_mesh(&pod.meta.labels);
                let endpoint = Endpoint { address: SocketAddr::new(ip, number), weight: 1, mesh_tls };
                Some((endpoint, pod.meta.labels.clone()))
            })
            .collect()
    }

    /// The Pods that carry the selector of a Service.
    fn carrying(&self, service: &kubernetes::Service) -> Vec<&'a Pod> {
        let wanted: Labels = service.selector.iter().cloned().collect();
        let namespace = service.meta.object.namespace.as_str();
        // The rarest of the labels leaves the fewest to look at.
        let with = wanted.iter().map(|(key, value)| {
            let pods = self.labelled.get(&(namespace, key.as_str(), value.as_str()));
            pods.map_or(&[][..], Vec::as_slice)
        });
        let Some(pods) = with.min_by_key(|pods| pods.len()) else { return Vec::new() };
        pods.iter().copied().filter(|pod| registry::carries(&pod.meta.labels, &wanted)).collect()
    }
}

/// The number under which a slice offers a Service's port: that of the same name; where a slice written by
/// hand has no such name, the target's number, or its only port for an only port.
fn slice_port(slice: &EndpointSlice, service: &kubernetes::Service, port: &ServicePort) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let target = match &port.target_port {
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(_)) => None,
        None => Some(port.port.value),
    };
    let tcp: Vec<&SlicePort> = slice.ports.iter().filter(|port| port.tcp).collect();
    let chosen = tcp
        .iter()
        .find(|offered| offered.name == name)
        .or_else(|| tcp.iter().find(|offered| offered.name.is_empty() && offered.port == target))
        .or_else(|| tcp.first().filter(|_| tcp.len() == 1 && service.ports.len() == 1))?;
    chosen.port.or(target)
}

/// The Services, each as something to call.
pub(crate) fn build(services: &[&kubernetes::Service], found: &Found<'_>) -> Vec<Service> {
    services.iter().map(|service| one(service, found)).collect()
}

fn one(service: &kubernetes::Service, found: &Found<'_>) -> Service {
    let object = &service.meta.object;
    let host = names::service_host(&object.name, &object.namespace);
    let mut ports: Vec<Port> = Vec::new();
    for port in service.ports.iter().filter(|port| port.tcp) {
        let speech = speech(port.app_protocol.as_deref(), port.name.as_deref().unwrap_or_default());
        let source = match &service.external_name {
            Some(name) => external(&name.value, port.port.value),
            None => Source::Static(found.endpoints(service, port)),
        };
        if ports.iter().all(|other| other.number != port.port.value) {
            ports.push(Port {
                number: port.port.value,
                http: speech.http,
                protocol: speech.protocol,
                source,
            });
        }
    }
    ports.sort_by_key(|port| port.number);
    Service {
        identity: registry::identity(&host, &object.name, &object.namespace),
        host,
        namespace: object.namespace.clone(),
        ports,
        backing: Backing::Endpoints,
        addresses: service.cluster_ips.clone(),
        origin: object.clone(),
        behind: found.behind(service),
    }
}

/// A Service of type ExternalName whose target is in the catalogue stands for that target: what is behind it
/// is known, and no DNS outside a cluster has its name.
pub(crate) fn join_aliases(services: &[&kubernetes::Service], catalogue: &mut BTreeMap<String, Service>) {
    for service in services {
        let Some(name) = &service.external_name else { continue };
        let object = &service.meta.object;
        let host = names::service_host(&object.name, &object.namespace);
        let target =
            catalogue.get(name.value.trim_end_matches('.')).filter(|target| target.host != host).cloned();
        let own = catalogue.get_mut(&host).filter(|own| own.origin == *object);
        let (Some(target), Some(own)) = (target, own) else { continue };
        own.backing = target.backing.clone();
        own.behind = target.behind.clone();
        for port in &mut own.ports {
            let Some(behind) = target.port(port.number) else { continue };
            *port = behind.clone();
        }
        // Of a function only its own port can be called.
        if !matches!(own.backing, Backing::Endpoints) {
            own.ports.clone_from(&target.ports);
        }
    }
}

fn external(name: &str, port: u16) -> Source {
    let name = name.trim_end_matches('.');
    match name.parse::<IpAddr>() {
        Ok(ip) => {
            let endpoint = Endpoint { address: SocketAddr::new(ip, port), weight: 1, mesh_tls: false };
            Source::Static(vec![(endpoint, Labels::new())])
        }
        Err(_) => Source::Dns(vec![(DnsTarget { host: name.to_owned(), port, weight: 1 }, Labels::new())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_spoken_to_as_its_app_protocol_or_name_says() {
        for (app_protocol, name, expected) in [
            (None, "", HTTP1),
            (None, "web", HTTP1),
            (None, "http-admin", HTTP1),
            (None, "HTTP2-x", HTTP2),
            (None, "grpc", HTTP2),
            (None, "grpc-web", HTTP2),
            (None, "grpc-web-x", HTTP2),
            (None, "h2c", HTTP2),
            (None, "tcp-redis", OPAQUE),
            (Some("kubernetes.io/h2c"), "http", HTTP2),
            (Some("http"), "grpc", HTTP1),
            (Some("tcp"), "http", OPAQUE),
            (Some("example.com/own"), "grpc", HTTP2),
        ] {
            assert_eq!(speech(app_protocol, name), expected, "{app_protocol:?} {name}");
        }
    }
}
