//! ISTIO_MUTUAL where it is not spoken: a process that plays the mesh by itself has no certificate of it to show.
//!
//! Towards what it plays too nothing is lost. Towards something outside, what is written as encrypted goes in
//! plaintext, which is a warning.

use super::names;
use super::registry::{Registry, Service};
use crate::api::istio::{DestinationRule, TlsSettings, TrafficPolicy};
use crate::model::ClientMode;
use crate::report::{Level, Problem};

/// Says so of each place where a rule asks for it.
pub(crate) fn check(rules: &[&DestinationRule], registry: &Registry, problems: &mut Vec<Problem>) {
    for rule in rules {
        let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        for policy in rule.traffic_policy.iter().chain(subsets) {
            problems.extend(asked(policy).map(|(tls, port)| said(rule, tls, &holds(policy, port), registry)));
        }
    }
}

/// Where a policy asks for it; the port, of what is said for one.
fn asked(policy: &TrafficPolicy) -> impl Iterator<Item = (&TlsSettings, Option<u16>)> {
    let ports = policy.port_level.iter().map(|own| (own.policy.tls.as_ref(), Some(own.port.value)));
    let all = std::iter::once((policy.tls.as_ref(), None)).chain(ports);
    all.filter_map(|(tls, port)| tls.filter(|tls| tls.mode == Some(ClientMode::IstioMutual)).zip(Some(port)))
}

/// Whether what is said for `port`, or for all that have no word of their own, is about a port of this number.
fn holds(policy: &TrafficPolicy, port: Option<u16>) -> impl Fn(u16) -> bool {
    move |number| match port {
        Some(port) => number == port,
        None => policy.port_level.iter().all(|own| own.port.value != number),
    }
}

fn said(
    rule: &DestinationRule,
    tls: &TlsSettings,
    holds: &impl Fn(u16) -> bool,
    registry: &Registry,
) -> Problem {
    let namespace = &rule.meta.object.namespace;
    let host = names::expand(&rule.host.value, namespace);
    let is_for = |service: &&Service| {
        let found = registry.rule(service);
        found.is_some_and(|found| found.host == host && found.namespace == *namespace)
    };
    let mut outside = registry.services().filter(|service| service.behind.outside).filter(is_for);
    let told = |level, message: String| rule.meta.problem(level, "SC007", &tls.path, tls.at, message);
    match outside.find(|service| service.ports.iter().any(|port| holds(port.number))) {
        Some(service) => {
            let message = format!(
                "ISTIO_MUTUAL acts between sidecars: {:?} is outside the mesh, and `run` speaks to it in plaintext",
                service.host
            );
            let help = "write SIMPLE, or MUTUAL with a certificate that it takes, or DISABLE if plaintext is meant; if it is \
                        of the mesh, its ServiceEntry says `location: MESH_INTERNAL`";
            told(Level::Warning, message).with_help(help)
        }
        None => {
            let message = "ISTIO_MUTUAL acts between sidecars: one process that plays both speaks plaintext";
            told(Level::Info, message.to_owned())
        }
    }
}
