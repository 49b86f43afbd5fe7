//! Kubernetes trees to structs.

use super::{
    ContainerPort, EndpointSlice, Pod, Service, ServicePort, SliceEndpoint, SlicePort, TargetPort, Workload,
};
use crate::api::Meta;
use crate::api::host::{self, Wildcard};
use crate::api::mesh;
use crate::decode::Cursor;
use crate::document::Value;
use crate::report::At;

fn pairs(map: &Cursor<'_>) -> Vec<(String, String)> {
    map.string_map().into_iter().map(|(key, value)| (key.value, value.value)).collect()
}

pub(crate) fn service(root: &Cursor<'_>, meta: Meta) -> Service {
    for (key, value) in root.field("metadata").field("annotations").entries() {
        match (key.value, value.text()) {
            ("networking.istio.io/exportTo", Some(namespaces)) if namespaces != "*" => {
                value.warn("SC007", "limiting visibility to namespaces: read, but does not act yet");
            }
            ("networking.istio.io/traffic-distribution", Some(_)) => {
                value.warn("SC007", "traffic distribution: read, but does not act yet");
            }
            _ => {}
        }
    }
    let spec = root.field("spec");
    let external = spec.field("type").text() == Some("ExternalName");
    let external_name = external.then(|| {
        let name = spec.field("externalName");
        if !name.is_present() {
            name.error("IST0106", "Required value for a Service of type ExternalName");
        }
        host::host(&name, Wildcard::No)
    });
    let list = spec.field("ports");
    let ports: Vec<ServicePort> = list.items().filter_map(|item| service_port(&item)).collect();
    let nameless = |item: &Cursor<'_>| item.field("name").text().is_none_or(str::is_empty);
    for item in list.items().filter(|item| ports.len() > 1 && nameless(item)) {
        item.error("IST0106", "a port needs a name where there are several");
    }
    for item in list.repeated("name") {
        let name = item.field("name");
        name.error("IST0106", format!("duplicate port name {:?}", name.text().unwrap_or_default()));
    }
    let cluster_ip = spec.field("clusterIP");
    let addresses = cluster_ip
        .string()
        .into_iter()
        .chain(spec.field("clusterIPs").strings().into_iter().map(|a| a.value));
    let mut cluster_ips: Vec<String> = addresses.filter(|a| a != "None" && !a.is_empty()).collect();
    cluster_ips.dedup();
    Service {
        meta,
        ports,
        selector: pairs(&spec.field("selector")),
        headless: cluster_ip.text() == Some("None"),
        cluster_ips,
        external_name: external_name.flatten(),
        publish_not_ready: spec.field("publishNotReadyAddresses").boolean().unwrap_or(false),
    }
}

fn service_port(item: &Cursor<'_>) -> Option<ServicePort> {
    let target = item.field("targetPort");
    let target_port = match target.node().map(|n| &n.value) {
        Some(Value::Number(_)) => match target.number::<u16>() {
            Some(0) | None => {
                target.error("IST0106", "port must be in the range 1..65535");
                None
            }
            Some(number) => Some(TargetPort::Number(number)),
        },
        Some(Value::String(name)) => {
            if name.parse::<u16>().is_ok() {
                target.error_with_help(
                    "IST0106",
                    format!("target port {name:?} is a name of digits"),
                    format!("write {name} without quotes"),
                );
            }
            Some(TargetPort::Name(name.clone()))
        }
        _ => None,
    };
    naming_convention(item);
    other_protocol(item);
    Some(ServicePort {
        port: item.field("port").number_at()?,
        name: item.field("name").string(),
        target_port,
        app_protocol: item.field("appProtocol").string(),
        tcp: item.field("protocol").text().is_none_or(|p| p == "TCP"),
    })
}

/// What a port's name may begin with to say what is spoken there.
const PROTOCOLS: [&str; 12] =
    ["http", "http2", "https", "grpc", "grpc-web", "tcp", "tls", "udp", "mongo", "mysql", "redis", "h2c"];

fn naming_convention(item: &Cursor<'_>) {
    let name = item.field("name").text().unwrap_or_default().to_ascii_lowercase();
    let known = |p: &str| name.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if item.field("appProtocol").is_present() || PROTOCOLS.iter().any(|p| known(p)) {
        return;
    }
    if item.field("protocol").text().is_some_and(|p| p != "TCP") {
        return;
    }
    let what = if name.is_empty() { "an unnamed port".to_owned() } else { format!("port name {name:?}") };
    item.note(
        "IST0118",
        format!("{what} does not say what is spoken there; name it for instance http or grpc"),
    );
}

/// Ports that speak something else than HTTP, and say so.
fn other_protocol(item: &Cursor<'_>) {
    let name = item.field("name").text().unwrap_or_default();
    let said = item.field("appProtocol").text().unwrap_or_else(|| name.split('-').next().unwrap_or(name));
    if ["https", "tls"].iter().any(|word| said.eq_ignore_ascii_case(word)) {
        let how = "reached through a Gateway that lets TLS pass, and not by HTTP";
        return item.note("SC007", format!("{said} ports are {how}"));
    }
    let other = ["tcp", "udp", "mongo", "mysql", "redis", "kubernetes.io/wss"];
    if other.iter().any(|word| said.eq_ignore_ascii_case(word)) {
        item.note("SC007", format!("{said} ports do not act yet: nothing is forwarded to this one"));
    }
}

pub(crate) fn endpoint_slice(root: &Cursor<'_>, meta: Meta) -> EndpointSlice {
    let endpoints = root.field("endpoints").items().map(|item| {
        let target = item.field("targetRef");
        let is_pod = target.field("kind").text() == Some("Pod");
        SliceEndpoint {
            at: item.at(),
            addresses: item.field("addresses").strings(),
            ready: item.field("conditions").field("ready").boolean().unwrap_or(true),
            pod: target.field("name").string().filter(|_| is_pod),
        }
    });
    let ports = root.field("ports").items().map(|item| SlicePort {
        name: item.field("name").string().unwrap_or_default(),
        port: item.field("port").number(),
        app_protocol: item.field("appProtocol").string(),
        tcp: item.field("protocol").text().is_none_or(|p| p == "TCP"),
    });
    let (endpoints, ports) = (endpoints.collect(), ports.collect());
    let service = meta.labels.get("kubernetes.io/service-name").cloned();
    if service.is_none() {
        root.field("metadata").warn_with_help(
            "IST0133",
            "the slice belongs to no Service",
            "label it `kubernetes.io/service-name: <service>`",
        );
    }
    EndpointSlice { meta, service, endpoints, ports }
}

pub(crate) fn pod(root: &Cursor<'_>, meta: Meta) -> Pod {
    let status = root.field("status");
    let first = status.field("podIPs").items().next().and_then(|ip| ip.field("ip").string());
    let ip = status.field("podIP").string().or(first);
    let not_ready = |condition: Cursor<'_>| {
        condition.field("type").text() == Some("Ready") && condition.field("status").text() == Some("False")
    };
    let ready = !status.field("conditions").items().any(not_ready);
    let spec = root.field("spec");
    let account = spec.field("serviceAccountName").string().filter(|name| !name.is_empty());
    let service_account = account.unwrap_or_else(|| "default".to_owned());
    let proxy = mesh::annotated(&root.field("metadata").field("annotations"));
    Pod { meta, ip, ready, ports: container_ports(&spec), service_account, proxy }
}

pub(crate) fn workload(root: &Cursor<'_>, meta: Meta) -> Workload {
    let template = root.field("spec").field("template");
    let labels = template.field("metadata").field("labels");
    let selector = root.field("spec").field("selector").field("matchLabels");
    for (key, value) in selector.entries() {
        let label: Option<At<String>> = labels.field(key.value).text_at();
        if label.as_ref().map(|l| l.value.as_str()) != value.text() {
            let message = format!("`selector` does not match template `labels`: {}", key.value);
            value.warn("IST0133", message);
        }
    }
    let annotations = template.field("metadata").field("annotations");
    let inject = annotations.field("sidecar.istio.io/inject");
    if inject.is_present() {
        inject.note(
            "SC050",
            "prefer the label `sidecar.istio.io/inject`: the annotation alone injects nothing",
        );
    }
    let proxy = mesh::annotated(&annotations);
    Workload { meta, template_labels: pairs(&labels), ports: container_ports(&template.field("spec")), proxy }
}

fn container_ports(spec: &Cursor<'_>) -> Vec<ContainerPort> {
    let of = |container: Cursor<'_>| {
        let ports: Vec<ContainerPort> = container
            .field("ports")
            .items()
            .filter_map(|port| {
                let name = port.field("name").string().unwrap_or_default();
                Some(ContainerPort { name, port: port.field("containerPort").number()? })
            })
            .collect();
        ports
    };
    spec.field("containers").items().flat_map(of).collect()
}
