//! A ServiceEntry's tree to its struct, and the rules between its fields.

use super::{EntryPort, Resolution, ServiceEntry, WorkloadAddress};
use crate::api::Meta;
use crate::api::host::{self, Wildcard};
use crate::decode::Cursor;
use crate::report::At;
use std::net::IpAddr;

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> ServiceEntry {
    let spec = root.field("spec");
    let hosts = spec.field("hosts");
    if hosts.is_present() && hosts.items().next().is_none() {
        hosts.error("IST0106", "service entry must have at least one host");
    }
    let resolution = resolution(&spec.field("resolution"));
    let list = spec.field("endpoints");
    let endpoints: Vec<WorkloadAddress> =
        list.items().filter_map(|item| endpoint(&item, resolution.value)).collect();
    let selector = spec.field("workloadSelector");
    if selector.is_present() && list.is_present() {
        selector.error("IST0106", "only one of WorkloadSelector or Endpoints can be set");
    }
    check_resolution(&spec, resolution.value);
    let labels = selector.field("labels").string_map();
    ServiceEntry {
        meta,
        hosts: entry_hosts(&hosts),
        ports: ports(&spec.field("ports")),
        external: spec.field("location").text().map(|location| location == "MESH_EXTERNAL"),
        names: spec.field("subjectAltNames").strings(),
        resolution,
        endpoints,
        workload_selector: labels.into_iter().map(|(key, value)| (key.value, value.value)).collect(),
    }
}

fn resolution(cursor: &Cursor<'_>) -> At<Resolution> {
    let value = match cursor.text() {
        Some("STATIC") => Resolution::Static,
        Some("DNS") => Resolution::Dns,
        Some("DNS_ROUND_ROBIN") => Resolution::DnsRoundRobin,
        Some("DYNAMIC_DNS") => Resolution::DynamicDns,
        _ => Resolution::None,
    };
    if value == Resolution::DynamicDns {
        cursor.warn("SC007", "resolution DYNAMIC_DNS does not act yet");
    }
    At::new(value, cursor.at())
}

fn check_resolution(spec: &Cursor<'_>, resolution: Resolution) {
    let endpoints = spec.field("endpoints");
    let count = endpoints.items().count();
    match resolution {
        Resolution::None if count > 0 => endpoints.error_with_help(
            "IST0106",
            "no endpoints should be provided for resolution type none",
            "write `resolution: STATIC` for addresses, `resolution: DNS` for names",
        ),
        Resolution::None => {
            let pattern = |host: &Cursor<'_>| host.text().is_some_and(|text| text.starts_with('*'));
            let (patterns, names): (Vec<_>, Vec<_>) = spec.field("hosts").items().partition(pattern);
            if !names.is_empty() {
                spec.warn_with_help(
                    "SC007",
                    "resolution NONE (the address the client dialled) acts as DNS: the host itself is looked up",
                    "write `resolution: DNS`, or STATIC with endpoints",
                );
            }
            for host in patterns {
                host.warn_with_help(
                    "SC007",
                    "a pattern with resolution NONE does not act yet: its requests answer 503",
                    "write each host out with `resolution: DNS`, or allow all with outboundTrafficPolicy ALLOW_ANY",
                );
            }
        }
        Resolution::DnsRoundRobin if count > 1 => {
            endpoints.error("IST0106", "DNS_ROUND_ROBIN mode cannot have multiple endpoints");
        }
        Resolution::Dns | Resolution::DnsRoundRobin if count == 0 => {
            for host in spec.field("hosts").items().filter(|h| h.text().is_some_and(|t| t.starts_with('*'))) {
                let message = "hosts must be FQDN if no endpoints are provided for resolution mode DNS";
                host.error("IST0106", message);
            }
        }
        _ => {}
    }
    if !matches!(resolution, Resolution::None | Resolution::Static) {
        for address in spec.field("addresses").items().filter(|a| a.text().is_some_and(|t| t.contains('/'))) {
            address.error("IST0106", "CIDR addresses are allowed only for NONE/STATIC resolution types");
        }
    }
}

fn entry_hosts(list: &Cursor<'_>) -> Vec<At<String>> {
    let hosts = host::hosts(list, Wildcard::Suffix);
    for item in list.items() {
        let short = |t: &str| !t.contains('.') && !t.contains('*') && t.parse::<IpAddr>().is_err();
        if item.text().is_some_and(short) {
            item.warn_with_help(
                "IST0133",
                "a host without a dot is not expanded in a ServiceEntry",
                "write the name in full, as clients send it",
            );
        }
    }
    hosts
}

fn ports(list: &Cursor<'_>) -> Vec<EntryPort> {
    let mut out: Vec<EntryPort> = Vec::new();
    for item in list.items() {
        let (Some(number), Some(name)) = (item.field("number").number_at(), item.field("name").string())
        else {
            continue;
        };
        if out.iter().any(|p| p.number == number) {
            item.error("IST0106", format!("port number cannot be duplicated: {}", number.value));
        }
        if out.iter().any(|p| p.name == name) {
            item.error("IST0106", format!("port name {name:?} already defined"));
        }
        let protocol = item.field("protocol").string().unwrap_or_default().to_ascii_uppercase();
        check_protocol(&item.field("protocol"), &protocol);
        let target_port = item.field("targetPort").number();
        out.push(EntryPort { number, name, protocol, target_port });
    }
    out
}

const TLS_PORT: &str = "through a Gateway that lets TLS pass, and not by HTTP";

fn check_protocol(cursor: &Cursor<'_>, protocol: &str) {
    match protocol {
        "" | "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => {}
        "HTTPS" | "TLS" => cursor.note("SC007", format!("{protocol} ports are reached {TLS_PORT}")),
        "TCP" | "UDP" | "MONGO" | "MYSQL" | "REDIS" => {
            cursor
                .warn("SC007", format!("{protocol} ports do not act yet: nothing is forwarded to this one"));
        }
        _ => cursor.error_with_help(
            "IST0106",
            format!("unsupported protocol: {protocol:?}"),
            "write one of HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, MYSQL, REDIS",
        ),
    }
}

fn endpoint(item: &Cursor<'_>, resolution: Resolution) -> Option<WorkloadAddress> {
    let field = item.field("address");
    let Some(address) = field.text_at().filter(|a| !a.value.is_empty()) else {
        item.error("IST0106", "Address is required");
        return None;
    };
    let ports: Vec<(String, u16)> = item
        .field("ports")
        .entries()
        .filter_map(|(name, port)| Some((name.value.to_owned(), port.number()?)))
        .collect();
    let is_ip = address.value.parse::<IpAddr>().is_ok();
    if let Some(path) = address.value.strip_prefix("unix://") {
        if !path.starts_with(['/', '@']) || path.ends_with('/') {
            field.error("IST0106", "UDS must be an absolute path or abstract socket");
        }
        if !ports.is_empty() {
            field.error("IST0106", "UDS may not include ports");
        }
        field.warn("SC007", "a unix socket as endpoint does not act yet");
    } else if resolution == Resolution::Static && !is_ip {
        field.error_with_help(
            "IST0106",
            format!("endpoint address {:?} is not a valid IP address", address.value),
            "write `resolution: DNS` for names",
        );
    } else if !is_ip && let Some(message) = host::problem(&address.value.to_ascii_lowercase(), Wildcard::No) {
        field.error("IST0106", message);
    }
    let labels = item.field("labels").string_map();
    Some(WorkloadAddress {
        at: item.at(),
        address,
        ports,
        labels: labels.into_iter().map(|(key, value)| (key.value, value.value)).collect(),
        service_account: item.field("serviceAccount").string().filter(|name| !name.is_empty()),
        weight: item.field("weight").number(),
    })
}
